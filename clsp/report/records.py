"""The manifests below a results folder, by stage and name."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clsp.report.shape import misshapen
from clsp.runtime.canonical import read_json, sha256_file
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import ENDING, FAILED, Artefact, read_manifest

SHARD = "generate-shard"
SHARD_FILE = re.compile(r"shards/\d+-of-(\d{1,6})\.npy$")


def manifest_paths(root: Path) -> list[Path]:
    """Every manifest below a folder, sorted; hidden folders hold work in progress."""
    found = []
    for path in root.rglob(f"*{ENDING}"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if not hidden and path.is_file():
            found.append(path)
    return sorted(found)


def name_of(artefact: Artefact) -> str:
    """Dataset, denoiser, bank, pairs or run an artefact belongs to: the name of its folder."""
    if artefact.stage == SHARD:
        return artefact.folder.parent.name
    return artefact.folder.name


def shard_of(artefact: Artefact) -> str:
    """Name of a shard, for example "1-of-2"."""
    return artefact.manifest.name.split(".")[0]


@dataclass(frozen=True)
class Records:
    """All readable manifests below `root`. Broken ones are left to the audit to name."""

    root: Path

    @cached_property
    def read(self) -> tuple[dict[Path, Artefact], dict[Path, str]]:
        """Artefacts by manifest path, and the error message of every manifest that is none."""
        good: dict[Path, Artefact] = {}
        bad: dict[Path, str] = {}
        for path in manifest_paths(self.root):
            try:
                artefact = read_manifest(path)
            except ClspError as error:
                bad[path] = str(error)
            except (AttributeError, RecursionError) as error:  # a list as predicate; deep nesting
                bad[path] = f"{path}: not a manifest of this suite ({error})"
            else:
                if problem := misshapen(artefact.statement):
                    bad[path] = f"{path}: not a manifest of this suite ({problem})"
                else:
                    good[path] = artefact
        return good, bad

    def __iter__(self) -> Iterator[Artefact]:
        return iter(self.read[0].values())

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[Artefact]]:
        index: dict[tuple[str, str], list[Artefact]] = {}
        for artefact in self:
            index.setdefault((artefact.stage, name_of(artefact)), []).append(artefact)
        return index

    def failure(self, stage: str, name: str, spec: dict[str, Any]) -> str:
        """Why the last attempt at an artefact with this spec failed, or nothing."""
        for path in self._failures:
            if path.parent.name != name:
                continue
            try:
                record = read_json(path)
            except ClspError as error:
                return str(error)
            if isinstance(record, dict) and (record.get("step"), record.get("spec")) == (
                stage,
                spec,
            ):
                return str(record.get("error"))
        return ""

    @cached_property
    def _failures(self) -> list[Path]:
        return sorted(self.root.rglob(f"*{FAILED}"))

    def named(self, stage: str, name: str) -> list[Artefact]:
        """Every artefact of a stage and name, current or not."""
        return self._index.get((stage, name), [])

    def shards_of(self, bank: str) -> list[str]:
        """Names of the shards that a bank was gathered from, 1-of-N to N-of-N; none without it."""
        count = 0
        for artefact in self.named("gather-bank", bank):
            used = [SHARD_FILE.search(d["uri"]) for d in artefact.predicate["resolvedDependencies"]]
            count = max((int(found[1]) for found in used if found), default=count)
        return [f"{number}-of-{count}" for number in range(1, count + 1)]

    def current(self, stage: str, name: str, spec: dict[str, Any]) -> Artefact | None:
        """The artefact whose spec is what is asked for now, or None."""
        same = [artefact for artefact in self.named(stage, name) if artefact.spec == spec]
        return same[0] if same else None

    def relative(self, artefact: Artefact) -> str:
        """Path of the manifest below the results folder, the same on every machine."""
        return artefact.manifest.relative_to(self.root).as_posix()


def manifest_digest(artefact: Artefact) -> str:
    """sha256 of the manifest file itself."""
    return sha256_file(artefact.manifest)
