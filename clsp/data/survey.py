"""What is here of every dataset: archives in the downloads folder, unpacked files, prepared data.

A look, not a proof: files are compared by size, and by digest only where that is asked for.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clsp.config.catalog import Archive, DatasetInfo, dataset_info
from clsp.config.schema import KINDS, DatasetSpec, FetchSpec
from clsp.data.checked import check_file
from clsp.runtime.errors import ClspError, DataError
from clsp.runtime.manifest import Artefact, read_manifest
from clsp.runtime.registry import load, settings_class

log = logging.getLogger(__name__)

# What a manifest that is not one of this suite's may raise when it is looked into.
MALFORMED = (ClspError, KeyError, TypeError, AttributeError, ValueError, OSError)

# An archive is one of the first five.
ABSENT, MANUAL, PARTIAL, WHOLE, CORRUPT = (
    "absent",
    "manual step needed",
    "partial",
    "whole",
    "corrupt",
)
FETCHED, PREPARED, BUILT_IN, YOURS = "fetched", "prepared", "built in", "your own folder"
DRAWN = "drawn when needed"  # a miniature


@dataclass(frozen=True)
class ArchiveState:
    """One archive of a dataset, as it lies in the downloads folder."""

    name: str
    state: str
    size: int  # bytes that are here
    expected: int | None  # bytes of the whole
    note: str = ""


@dataclass
class DatasetState:
    """One dataset, as it is on this machine."""

    name: str
    kind: str
    title: str
    license: str
    protocols: list[str]
    archives: list[ArchiveState] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)  # folders with its unpacked files
    prepared: list[str] = field(default_factory=list)  # folders with its prepared data
    problems: list[str] = field(default_factory=list)
    size: int = 0  # bytes on disk, everything together
    state: str = ABSENT
    note: str = ""  # what to do next, where that is not obvious

    def record(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def archive_state(archive: Archive, folder: Path, digests: bool) -> ArchiveState:
    """Look at one archive; with `digests` read it and compare them."""
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    if path.is_dir():
        note = f"{path}: is a folder, expected the archive itself; move it away"
        return ArchiveState(archive.name, CORRUPT, 0, archive.size, note)
    if path.is_file():
        size = path.stat().st_size
        if archive.size is not None and size != archive.size:
            note = f"{path}: {size} bytes, expected {archive.size}"
            return ArchiveState(archive.name, CORRUPT, size, archive.size, note)
        try:
            if digests:
                check_file(path, archive)
        except DataError as error:
            return ArchiveState(archive.name, CORRUPT, size, archive.size, str(error))
        return ArchiveState(archive.name, WHOLE, size, archive.size)
    if part.is_file():
        return ArchiveState(archive.name, PARTIAL, part.stat().st_size, archive.size)
    state = ABSENT if archive.urls else MANUAL
    return ArchiveState(archive.name, state, 0, archive.size, archive.manual or "")


def _fault(artefact: Artefact) -> str:
    """What is wrong with the files of an artefact, judged by size; empty if nothing is."""
    for name, subject in artefact.subjects.items():
        path = artefact.folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != subject["size"]:
            return f"{path}: {'missing' if found is None else f'{found} bytes'}, expected " + (
                f"{subject['size']} bytes; delete {artefact.folder} and run snakemake again"
            )
    return ""


def artefacts(homes: Iterable[Path], where: str) -> Iterator[tuple[Path, Artefact]]:
    """Every artefact in the folder `where` of the given data folders, such as results/demo/data."""
    for home in homes:
        for manifest in sorted(home.glob(f"{where}/*/manifest.json")):
            try:
                yield manifest.parent, read_manifest(manifest)
            except MALFORMED:  # no artefact of ours, or half of one: the audit tells more
                log.info("%s: passed over", manifest)


def _is_real(artefact: Artefact) -> bool:
    return artefact.spec.get("options", {}).get("source") != "miniature"


def _options(spec: DatasetSpec, where: str) -> dict[str, Any]:
    """Options of the artefact that a dataset has under raw or prepared."""
    if where == "raw" and spec.settings().fetched:
        return FetchSpec.behind(spec).options
    return spec.options


def _look_at_results(state: DatasetState, spec: DatasetSpec | None, homes: list[Path]) -> None:
    """Add what stages have made of a dataset: of an entry of params.yaml, else of its kind."""
    for where, found in (("raw", state.fetched), ("prepared", state.prepared)):
        wanted = spec and (spec.kind, _options(spec, where))
        for folder, artefact in artefacts(homes, where):
            named = spec is None or folder.name == state.name
            try:
                if named and _is_of(state.kind, wanted, artefact):
                    _add(state, artefact, found)
            except MALFORMED as error:
                log.info("%s: passed over", artefact.manifest)
                if folder.name == state.name:
                    _add_note(state, f"{artefact.manifest}: not understood ({error!r})")


def _is_of(kind: str, wanted: tuple[str, Any] | None, artefact: Artefact) -> bool:
    """Whether an artefact was made of a kind's real files, or of an entry of params.yaml."""
    made: Any = artefact.spec
    if wanted is None:
        return made.get("kind") == kind and _is_real(artefact)
    return wanted == (made["kind"], made.get("options"))


def _add(state: DatasetState, artefact: Artefact, found: list[str]) -> None:
    state.size += sum(subject["size"] for subject in artefact.subjects.values())
    if problem := _fault(artefact):
        state.problems.append(problem)
    else:
        found.append(str(artefact.folder))


def _add_note(state: DatasetState, note: str) -> None:
    state.note = f"{state.note}; {note}" if state.note else note


def _judge_absent(state: DatasetState, known: DatasetInfo, states: set[str]) -> None:
    """What is still to be done for a dataset of which nothing is here."""
    if not states:
        state.state = MANUAL if known.counts else YOURS
        state.note = known.manual or ""
        if not known.manual:
            state.state = BUILT_IN
    elif MANUAL in states:
        state.state, state.note = MANUAL, known.manual or "see --json"
    elif states & {PARTIAL, WHOLE}:
        state.state = PARTIAL
    else:
        state.note = next((a.manual for a in known.archives if a.manual), "")


def _judge(state: DatasetState, known: DatasetInfo, drawn: bool) -> None:
    """Say in one word where a dataset stands, and what to do next."""
    states = {archive.state for archive in state.archives}
    if state.problems:
        state.state, state.note = CORRUPT, state.problems[0]
    elif state.prepared:
        state.state = PREPARED
    elif state.fetched or states == {WHOLE}:
        state.state = FETCHED
    elif drawn:
        state.state = DRAWN
    else:
        _judge_absent(state, known, states)
        try:
            if copy := installed_copy(state.kind):
                state.state, state.note = FETCHED, f"the copy in {copy}"
        except (ClspError, OSError) as error:
            state.note = str(error)


def look(
    kind: str,
    folder: Path,
    homes: list[Path],
    digests: bool = False,
    entry: tuple[str, DatasetSpec] | None = None,
) -> DatasetState:
    """Look at one dataset kind, or at one dataset of a params.yaml.

    Args:
        kind: Which.
        folder: The downloads folder.
        homes: Where stages keep data, such as results/demo/data.
        digests: Read archives and compare digests, too.
        entry: Name and settings of the dataset, if it is one of a params.yaml.

    Raises:
        ConfigError: If there is no such kind.
    """
    known = dataset_info(kind)
    name, spec = entry or (kind, None)
    options = spec.options if spec else {}
    drawn = options.get("source") == "miniature"
    state = DatasetState(name, kind, known.title, known.license, list(known.counts))
    if not drawn:
        state.archives = [archive_state(each, folder, digests) for each in known.archives]
        state.size = sum(archive.size for archive in state.archives)
        state.problems = [a.note for a in state.archives if a.state == CORRUPT]
    _look_at_results(state, spec, homes)
    odd, state.note = state.note, ""
    _judge(state, known, drawn)
    root = options.get("root")
    if state.state in (MANUAL, YOURS) and isinstance(root, str):
        there = Path(root).expanduser().is_dir()
        state.state, state.note = (YOURS, root) if there else (MANUAL, f"{root}: no such folder")
    if odd:
        _add_note(state, odd)
    return state


def raw_folders(kind: str, homes: Iterable[Path]) -> Iterator[Path]:
    """Folders with the unpacked real files of a kind, whole as far as sizes tell."""
    for folder, artefact in artefacts(homes, "raw"):
        try:
            mine = artefact.spec.get("kind") == kind
            whole = mine and _is_real(artefact) and not _fault(artefact)
        except MALFORMED:
            log.info("%s: passed over", artefact.manifest)
            continue
        if whole:
            yield folder / "files"


def installed_copy(kind: str) -> Path | None:
    """Where a package of the system, or the user, has put the files of a kind that looks there."""
    if not dataset_info(kind).archives or settings_class(KINDS, kind).fetched:
        return None
    return load(KINDS, kind, "kind").installed()
