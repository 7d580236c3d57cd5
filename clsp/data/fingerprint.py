"""Identifies what lies in a user's own folder, so that a changed file reruns what depends on it.

Of an image folder names and contents count, times do not: a copy on another machine is the same
data. Imported by the Snakefile while it parses, so hashes are kept from call to call and a file is
read again only when its size or a time stamp changes.

Of ImageNet, 15 GB in its 100 classes, names and sizes count, and a class folder is listed again
only when a time stamp of the folder changes. A file overwritten in place with another size is thus
missed until something is added to, removed from or renamed in its folder; what prepare-dataset read
is known all the same, from the digest of every image in items.csv.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from clsp.config.catalog import dataset_info
from clsp.data.groups import groups_file
from clsp.data.imagenet import class_folders, images_in
from clsp.data.tree import walk
from clsp.runtime.canonical import read_json, sha256_file
from clsp.runtime.errors import DataError
from clsp.runtime.files import write_atomic

CACHE = Path(".clsp") / "fingerprints.json"
LOCAL = ("image_folder", "imagenet100")  # kinds that read a folder of the user's
SETTLED = 2.0  # seconds; a file written later may change again within one tick of its time stamp

Hashes = dict[str, list[Any]]  # name of a file or folder -> [size, mtime, ctime (ns), sha256]


def _files(root: Path, groups: str | None) -> Iterator[tuple[str, Path]]:
    """Every file that the dataset reads, by a name that is the same on every machine."""
    for classes in walk(root).values():
        for files in classes.values():
            yield from ((str(path.relative_to(root)), path) for path in files)
    if groups is not None:
        yield f"groups: {groups}", groups_file(root, groups)


def _state(path: Path) -> list[int]:
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _entry(path: Path, kept: Any, hashed: Callable[[Path], str]) -> list[Any]:
    """Of one file or folder: `kept` if it is unchanged, else its state and hash now."""
    state = _state(path)
    same = isinstance(kept, list) and len(kept) == 4 and kept[:3] == state
    return kept if same else [*state, hashed(path)]


def _hashes(root: Path, groups: str | None, known: Hashes) -> Hashes:
    """Hash every file that the dataset reads, taking from `known` what is unchanged."""
    return {name: _entry(path, known.get(name), sha256_file) for name, path in _files(root, groups)}


def _listing_sha256(folder: Path) -> str:
    """Of names and sizes of the images of a class."""
    digest = hashlib.sha256()
    for path in images_in(folder):
        digest.update(os.fsencode(path.name) + f"\0{_state(path)[0]}\n".encode())
    return digest.hexdigest()


def _listings(root: Path, known: Hashes) -> Hashes:
    """The same as `_hashes` for the folders of ImageNet's 100 classes."""
    wnids = sorted(dataset_info("imagenet100").class_names)
    found = ((str(f.relative_to(root)), f) for f in class_folders(root, wnids))
    return {name: _entry(path, known.get(name), _listing_sha256) for name, path in found}


def _digest(hashes: Hashes) -> str:
    lines = [f"{name}\0{entry[3]}" for name, entry in hashes.items()]
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()


def _remembered() -> dict[str, Hashes]:
    """The hashes kept so far; a damaged file costs time, nothing else."""
    try:
        kept = json.loads(CACHE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {root: hashes for root, hashes in kept.items() if isinstance(hashes, dict)}


def _remember(root: str, hashes: Hashes, before: dict[str, Hashes]) -> None:
    limit = time.time_ns() - int(SETTLED * 1e9)
    settled = {name: entry for name, entry in hashes.items() if max(entry[1:3]) < limit}
    if settled != before.get(root, {}):
        # ASCII: a name that is no UTF-8 survives as an escape.
        private = CACHE.with_name(f"{CACHE.stem}-{os.getpid()}.json")
        write_atomic(private, json.dumps({**before, root: settled}))
        private.replace(CACHE)


@cache
def imagenet_digest(root: Path) -> str:
    """Of a resolved root, looked at once in a process: several entries may crop the same images."""
    before, name = _remembered(), f"imagenet100: {root}"
    listings = _listings(root, before.get(name, {}))
    _remember(name, listings, before)
    return _digest(listings)


def _folder_digest(root: Path, groups: str | None) -> str:
    """Of an image folder, from hashes that are kept where files are unchanged."""
    before, name = _remembered(), str(root.resolve())
    hashes = _hashes(root, groups, before.get(name, {}))
    _remember(name, hashes, before)
    return _digest(hashes)


def read_fingerprint(spec: Any) -> str:
    """Look at every file that a dataset reads, all of them now.

    Args:
        spec: A DatasetSpec.

    Returns:
        Hex sha256 for a kind that reads the user's own folder; "" for the others, whose files this
        suite fetches itself.

    Raises:
        DataError: If the folder is missing, empty or not laid out as the kind expects.
    """
    if spec.kind not in LOCAL:
        return ""
    root = Path(spec.options["root"]).expanduser()
    if spec.kind == "imagenet100":
        return _digest(_listings(root, {}))
    return _digest(_hashes(root, spec.options.get("groups"), {}))


def fingerprint(spec: Any, card: Path | None) -> str:
    """The same as `read_fingerprint`, from hashes that are kept in CACHE where files are unchanged.

    Args:
        spec: A DatasetSpec.
        card: Where the prepared dataset's card is, or would be. If the folder is not on this
            machine, the card says what was in it.

    Raises:
        DataError: If there is neither folder nor card, or the folder is empty or not laid out as
            the kind expects.
    """
    if spec.kind not in LOCAL:
        return ""
    root = Path(spec.options["root"]).expanduser()
    if not root.exists() and card is not None and card.is_file():
        recorded = read_json(card)
        if isinstance(recorded, dict) and recorded.get("fingerprint"):
            return str(recorded["fingerprint"])
    if spec.kind == "imagenet100":
        return imagenet_digest(root.resolve())
    return _folder_digest(root, spec.options.get("groups"))
