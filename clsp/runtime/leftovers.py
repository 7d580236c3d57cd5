"""Files of an artefact's last making that its next making no longer writes.

A dataset that changes its `storage` leaves images.npy beside images.arrow, for example. What was
made is noted outside the folder as well, because Snakemake deletes a manifest before it starts the
job that writes it anew.
"""

import json
from pathlib import Path, PurePosixPath

from clsp.runtime.canonical import canonical_json, sha256_text
from clsp.runtime.errors import ClspError
from clsp.runtime.files import write_atomic
from clsp.runtime.manifest import ENDING, Artefact, read_manifest

NOTES = Path(".clsp") / "made"


def _note(manifest: Path) -> Path:
    return NOTES / f"{sha256_text(str(manifest.resolve()))[:24]}.json"


def _subjects(manifest: Path) -> set[str]:
    """Names of an artefact's files; none where the manifest is missing or damaged."""
    try:
        return set(read_manifest(manifest).subjects)
    except (ClspError, KeyError, TypeError, AttributeError):
        return set()


def named(manifest: Path) -> set[str]:
    """Names of the files that an artefact had when it was last made here, by manifest and note."""
    try:
        noted = json.loads(_note(manifest).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        noted = []
    kept = noted if isinstance(noted, list) else []
    return _subjects(manifest) | {name for name in kept if isinstance(name, str)}


def _inside(folder: Path, name: str) -> Path | None:
    """A file below the folder that no link leads to; None for anything else."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or parts[0] == "/":
        return None
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            return None
    return path if path.is_file() else None


def sweep(artefact: Artefact, earlier: set[str]) -> None:
    """Remove what an artefact had and has no longer, and note what it has.

    Args:
        artefact: Just made.
        earlier: From `named`, before it was made.
    """
    folder, current = artefact.folder, set(artefact.subjects)
    stale = earlier - current
    if stale:  # other artefacts may share the folder
        others = (path for path in folder.glob(f"*{ENDING}") if path != artefact.manifest)
        stale = stale.difference(*map(_subjects, others))
    for name in sorted(stale):
        if path := _inside(folder, name):
            path.unlink()
    write_atomic(_note(artefact.manifest), canonical_json(sorted(current)) + "\n")
