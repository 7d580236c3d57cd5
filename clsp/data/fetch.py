"""Stage fetch-dataset: the files of a dataset, downloaded and unpacked, or drawn in miniature."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clsp.config.catalog import Archive, Members, dataset_info
from clsp.config.schema import KINDS, FetchSpec
from clsp.data.checked import downloads
from clsp.data.download import Obtained, obtain
from clsp.data.extract import FILE_MODE, whole, write_members
from clsp.data.members import Unpacked
from clsp.data.patience import PATIENCE, Patience
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.registry import load
from clsp.runtime.stage import Outcome, Output


def obtain_all(kind: str, patience: Patience = PATIENCE) -> list[tuple[Archive, Obtained]]:
    """Have every archive of a kind in the downloads folder, checked.

    Raises:
        ConfigError: If the kind has no archives.
        DataError: If one cannot be downloaded or is not the published one; the others are tried
            all the same, and every failure is named.
    """
    known = dataset_info(kind)
    if not known.archives:
        raise ConfigError(f'kind "{kind}" has nothing to fetch. {known.manual or known.source}')
    here, failures = [], []
    for archive in known.archives:
        try:
            here.append((archive, obtain(archive, downloads(), patience)))
        except DataError as error:
            failures.append(str(error))
    if failures:
        told = [known.manual] if known.manual else []
        raise DataError("\n".join([*failures, *told]))
    return here


def _copy(obtained: Obtained, folder: Path) -> Unpacked:
    """A file that is no archive: wanted as it is."""
    target = folder / obtained.path.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(obtained.path, target)
        target.chmod(FILE_MODE)
    except OSError as error:
        raise DataError(f"{obtained.path}: cannot be copied to {target} ({error})") from error
    return Unpacked(1, obtained.checked.size, {obtained.path.name: 1}, 0, ())


def _unpack_nested(archive: Archive, folder: Path, room: Path) -> list[Unpacked]:
    """Unpack archives that came out of an archive."""
    return [write_members(room / inner.name, folder, inner.members) for inner in archive.nested]


def place(archive: Archive, obtained: Obtained, files: Path) -> list[Unpacked]:
    """Put an archive's members, or the file itself, where the kind's reader expects them.

    Args:
        archive: What is known of it.
        obtained: The checked file.
        files: The dataset's folder, a private one: a failure leaves files behind.

    Returns:
        What came out of it and of each archive inside it.

    Raises:
        DataError: If the archive is damaged or unsafe, or has changed since it was checked.
    """
    folder = files / archive.folder
    obtained.checked.still_there()
    if not archive.packed:
        return [_copy(obtained, folder)]
    found = []
    if archive.members:
        found.append(write_members(obtained.path, folder, archive.members))
    if archive.nested:
        room = files / ".nested"
        wanted = [Members(pattern=inner.name, count=1) for inner in archive.nested]
        write_members(obtained.path, room, wanted)
        found += _unpack_nested(archive, folder, room)
        shutil.rmtree(room)
    return found


def unpack_all(archives: Sequence[tuple[Archive, Obtained]], files: Path) -> list[dict[str, Any]]:
    """Unpack the archives of a dataset into one new folder: everything, or nothing at all.

    Returns:
        A record per archive, for the manifest.

    Raises:
        DataError: If an archive is damaged or unsafe, or the folder is there already.
    """
    records = []
    with whole(files) as room:
        for archive, obtained in archives:
            records.append(
                {
                    "name": archive.name,
                    "url": obtained.url,
                    **obtained.checked.record(),
                    "checked": archive.checked,
                    "contents": [part.record() for part in place(archive, obtained, room)],
                }
            )
    return records


def _count(records: list[dict[str, Any]], key: str) -> int:
    return sum(part[key] for record in records for part in record["contents"])


def fetch_dataset(spec: FetchSpec, files: Output) -> Outcome:
    """Download the archives of a dataset and unpack them, or draw its miniature.

    Archives are kept in downloads/ ($CLSP_DOWNLOADS names another folder), where the user may also
    put them.

    Raises:
        ConfigError: If the kind needs no fetching.
        DataError: If a download fails, or an archive is not the published one.
    """
    settings = spec.settings()
    if not settings.fetched:
        raise ConfigError(f'kind "{spec.kind}" reads files that are here already; nothing to fetch')
    if settings.source == "download":
        records = unpack_all(obtain_all(spec.kind), files)  # the slow part fails first
        counters = {"files": _count(records, "files"), "bytes": _count(records, "unpacked_size")}
        return Outcome(counters=counters, facts={"archives": records})
    with whole(files) as room:
        load(KINDS, spec.kind, "kind").draw(room, settings.seed)
        count = sum(path.is_file() for path in room.rglob("*"))
    return Outcome(counters={"files": count}, facts={"miniature": True})
