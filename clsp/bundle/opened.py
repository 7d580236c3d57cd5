"""A bundle as an audit sees it: unpacked into a folder of its own, and gone afterwards."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clsp import __version__
from clsp.audit.bundled import UNREAD
from clsp.audit.mirror import EXPORT
from clsp.audit.place import Place
from clsp.bundle.layout import MANIFEST, MLFLOW, PARAMS, SPEC, Contents
from clsp.bundle.unpack import unpack
from clsp.config.schema import Params
from clsp.config.strict import parse
from clsp.runtime.canonical import parse_json, sha256_file, sha256_json
from clsp.runtime.errors import ClspError, DataError
from clsp.runtime.ledger import GENESIS, ledger_below, read_ledger
from clsp.runtime.source import source_state


@dataclass(frozen=True)
class Opened:
    """An unpacked bundle.

    Attributes:
        path: The archive.
        root: Where it was unpacked.
        contents: Its manifest.
        params: The parameters in it.
    """

    path: Path
    root: Path
    contents: Contents
    params: Params

    @property
    def results(self) -> Path:
        """Folder of results."""
        return self.root / "results" / self.contents.profile

    @property
    def reports(self) -> Path:
        """Folder of the report."""
        return self.root / "reports" / self.contents.profile

    @property
    def mlflow(self) -> str | None:
        """What was kept of the MLflow store, as the audit names it."""
        path = self.root / MLFLOW
        return f"{EXPORT}{path}" if path.is_file() else None

    @property
    def place(self) -> Place:
        """Where the audit finds files that records name."""
        absent = self.contents.left_out.values()
        return Place(self.root, {self.root / each.name: each.sha256 for each in absent})

    @property
    def out(self) -> Path:
        """Where audit.json goes if nobody says otherwise: beside the bundle."""
        return self.path.with_name(f"{self.path.name}.audit.json")

    def differing(self, expectations: Path) -> list[str]:
        """Expectations that are others here than in the bundle."""
        told = self.contents.record["expectations"]
        here = {name: expectations / Path(name).relative_to(SPEC) for name in told}
        return sorted(
            name
            for name, path in here.items()
            if not path.is_file() or sha256_file(path) != told[name]
        )

    def record(self, expectations: Path) -> dict[str, Any]:
        """What audit.json says of the bundle."""
        told = self.contents.record
        same = ("complete", "missing", "suite", "changed")
        return {
            **{key: told[key] for key in same},
            "name": self.path.name,
            "files": len(self.contents.members),
            "left_out": sorted(self.contents.left_out),
            "expectations_that_differ": self.differing(expectations),
        }

    def notes(self, expectations: Path) -> list[str]:
        """Lines that are printed before the findings."""
        made = self.contents.record["suite"]
        here = source_state()["git_commit"]
        told = f"version {made.get('version')}, commit {str(made.get('git_commit'))[:12]}"
        lines = [f"bundle {self.path.name}: profile {self.contents.profile}, packed by {told}"]
        if (made.get("version"), made.get("git_commit")) != (__version__, here):
            told = f"version {__version__}, commit {str(here)[:12]}"
            lines.append(
                f"note: the suite here is {told}. Where its code differs from that behind the "
                "results, A06 finds it; to audit by theirs, check out the commit of the bundle"
            )
        if absent := self.contents.record["missing"]:
            told = f"{len(absent)} artefacts were not there, {absent[0]} for one"
            lines.append(f"note: packed from an unfinished run: {told}")
        if absent := [name for name in sorted(self.contents.left_out) if not name.endswith(UNREAD)]:
            lines.append(f"note: {len(absent)} files were left out, {absent[0]} for one")
        lines += [
            f"note: {name} here is another file than in the bundle; yours decides"
            for name in self.differing(expectations)
        ]
        return lines


def _params(path: Path, root: Path) -> Params:
    try:
        text = (root / PARAMS).read_text(encoding="utf-8")
        return parse(Params, parse_json(text), PARAMS)
    except (OSError, ValueError, RecursionError, ClspError) as error:
        raise DataError(f"{path}: {PARAMS} cannot be used: {error}") from error


def _agree(path: Path, root: Path, contents: Contents, params: Params) -> None:
    """The manifest's own words are those of the files that it names."""
    held = ledger_below(root / "results" / contents.profile)
    pairs = {
        "profile": (contents.profile, params.profile),
        "spec_sha256": (contents.record["spec_sha256"], sha256_json(params.canonical())),
        "ledger.head": (
            contents.record["ledger"].get("head") or GENESIS,
            read_ledger(held).head if held else GENESIS,
        ),
    }
    for key, (told, found) in pairs.items():
        if told != found:
            raise DataError(f"{path}: {MANIFEST} says {key} {told}, its files give {found}")


def _check(path: Path, root: Path) -> Opened:
    contents = unpack(path, root)
    params = _params(path, root)
    _agree(path, root, contents, params)
    found = Opened(path, root, contents, params)
    for folder in (found.results, found.reports):
        folder.mkdir(parents=True, exist_ok=True)  # of a run that was stopped early
    return found


@contextlib.contextmanager
def opened(path: Path, folder: Path | None = None) -> Iterator[Opened]:
    """Unpack a bundle for as long as it is needed.

    Args:
        path: The bundle.
        folder: Where to, to be kept; None: a temporary folder.

    Raises:
        DataError: If the bundle is damaged or hostile, or cannot be unpacked there.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="clsp-bundle-") as room:
            yield _check(path, Path(room).resolve())
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"--unpack {folder}: expected an empty folder, or none")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = _check(path, folder.resolve())
    except BaseException:  # a bundle that was refused leaves nothing that could be taken for one
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        raise
    yield found
