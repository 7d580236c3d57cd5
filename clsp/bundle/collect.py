"""Which files a bundle holds, what is missing, and what is left out."""

import fnmatch
import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clsp.audit.bundled import EXPORTS, UNREAD
from clsp.audit.suite import Suite
from clsp.bundle.layout import LOCK, SPEC, wrong_name
from clsp.bundle.pack import sha256_of
from clsp.config.plan import Job
from clsp.report.records import name_of
from clsp.runtime.digest import ROOT
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.ledger import NAME as LEDGER
from clsp.runtime.manifest import ENDING

WANTED = ("manifests and the ledger", "every check reads them")


@dataclass
class Collected:
    """What goes into a bundle.

    Attributes:
        files: Name in the bundle -> path.
        left_out: Records of files that are not packed, with the reason.
    """

    files: dict[str, Path] = field(default_factory=dict)
    left_out: list[dict[str, Any]] = field(default_factory=list)


def files_below(folder: Path, ignored: Path | None = None) -> list[Path]:
    """Every file below a folder; hidden ones are work in progress or a tool's notes.

    Args:
        folder: That is looked through.
        ignored: A folder in it that is not.

    Raises:
        DataError: If something there is neither a file nor a folder, or is a link.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        shown = (name for name in folders if not name.startswith("."))
        folders[:] = sorted(name for name in shown if Path(parent) / name != ignored)
        for name in [*folders, *names]:
            path = Path(parent) / name
            mode = path.lstat().st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)) and not name.startswith("."):
                raise DataError(f"{path}: is a link or no file; a bundle holds files alone")
        found += [Path(parent) / name for name in sorted(names) if not name.startswith(".")]
    return found


def _left_out(name: str, path: Path, why: str) -> dict[str, Any]:
    told = {"name": name, "size": path.stat().st_size, "sha256": sha256_of(path), "why": why}
    return told


def _is_record(name: str) -> bool:
    return name.endswith((ENDING, LEDGER))


def collect(suite: Suite, patterns: Sequence[str]) -> Collected:
    """Files of results, reports and expectations.

    Args:
        suite: What is packed.
        patterns: Of names that the user leaves out, as of a shell.

    Raises:
        ConfigError: If a pattern fits nothing, or manifests or the ledger.
        DataError: If something cannot be packed.
    """
    found, used = Collected(), Counter()
    roots = {f"results/{suite.params.profile}": suite.results}
    roots |= {f"reports/{suite.params.profile}": suite.reports, SPEC: suite.expectations}
    for top, root in roots.items():
        for path in files_below(root, suite.reports / EXPORTS):
            below = path.relative_to(root).as_posix()
            name = f"{top}/{below}"
            if wrong := wrong_name(name):
                raise DataError(f"{path}: {wrong}; it cannot be packed")
            if below in UNREAD:
                why = "no check reads it"
                found.left_out.append(_left_out(name, path, why))
                continue
            fitting = [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)]
            used.update(fitting)
            if fitting and _is_record(name):
                told = "{}; {}".format(*WANTED)
                raise ConfigError(f"--leave-out {fitting[0]}: fits {name}: {told}")
            if fitting:
                found.left_out.append(_left_out(name, path, f"--leave-out {fitting[0]}"))
            else:
                found.files[name] = path
    if unused := [pattern for pattern in patterns if not used[pattern]]:
        raise ConfigError(
            f"--leave-out {unused[0]}: fits no file; one is called {next(iter(found.files))}"
        )
    lock = suite.place.beside(LOCK)
    if lock.is_file():
        found.files[LOCK] = lock
    return found


def missing(suite: Suite) -> list[str]:
    """Artefacts that params.yaml asks for and that are not there, as "stage name"."""

    def is_there(job: Job) -> bool:
        wanted = suite.shards_of(job.name) if job.stage == "generate-shard" else [None]
        return len(suite.made(job)) >= len(wanted)

    absent = [f"{job.stage} {job.name}" for job in suite.jobs if not is_there(job)]
    drawn = [
        f"{job.stage} {name.removesuffix('.manifest.json')}"
        for job, name in suite.report_jobs
        if suite.report_artefact(name) is None
    ]
    return absent + drawn


def commits(suite: Suite) -> dict[str, int]:
    """Commit -> how many artefacts it made."""
    found: Counter[str] = Counter()
    for _, artefact in suite.in_use:
        inside = artefact.predicate["internalParameters"]
        found[f"{inside.get('git_commit')}{'+changes' if inside.get('dirty') else ''}"] += 1
    return dict(sorted(found.items()))


def vocabulary(suite: Suite) -> set[str]:
    """Words of the suite's own files, of settings and of artefacts' names, in lower case."""
    words: set[str] = set()
    for path in [*(ROOT / "clsp").rglob("*.py"), *(ROOT / "clsp").rglob("*.jinja")]:
        words.update(re.findall(r"[a-z0-9]+", path.read_text(encoding="utf-8").lower()))

    def take(value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                words.add(str(key).lower())
                take(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                take(inner)
        elif isinstance(value, str):
            words.update(value.lower().replace(".", " ").replace("-", " ").split())

    take(suite.params.canonical())
    for artefact in suite.artefacts:
        take([name_of(artefact), artefact.stage, artefact.predicate["facts"]])
    return words
