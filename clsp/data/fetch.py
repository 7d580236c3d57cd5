"""Stage fetch-dataset: the files of a dataset, downloaded and unpacked, or drawn in miniature."""

import shutil
from pathlib import Path
from typing import Any

from clsp.config.schema import KINDS, DatasetSpec
from clsp.data.catalog import Archive
from clsp.data.download import obtain
from clsp.data.extract import unpack
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import load
from clsp.runtime.stage import Outcome, Output

CACHE = Path(".clsp/downloads")
PACKED = (".tar", ".tar.gz", ".tgz", ".zip")


def place(archive: Archive, path: Path, files: Path) -> int:
    """Put a checked archive's members, or the file itself, where the kind's reader expects them.

    Returns:
        Files written.

    Raises:
        DataError: If the archive is damaged or unsafe.
    """
    folder = files / archive.folder
    if not archive.name.endswith(PACKED):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / archive.name)
        return 1
    count = unpack(path, folder, archive.prefix)
    for inner in archive.nested:
        count += unpack(folder / inner, folder) - 1
        (folder / inner).unlink()
        (folder / inner).parent.rmdir()
    return count


def _download(archives: tuple[Archive, ...], files: Path) -> Outcome:
    records: list[dict[str, Any]] = []
    checked = []
    for archive in archives:  # all downloads before any unpacking: the slow part fails first
        path, digest = obtain(archive, CACHE)
        checked.append(path)
        records.append(
            {
                "url": archive.url,
                "size": path.stat().st_size,
                "sha256": digest,
                "confirmed": archive.sha256 is not None,
                "checked": archive.checked,
            }
        )
    counts = [place(archive, path, files) for archive, path in zip(archives, checked, strict=True)]
    return Outcome(counters={"files": sum(counts)}, facts={"archives": records})


def fetch_dataset(spec: DatasetSpec, files: Output) -> Outcome:
    """Download the archives of a dataset and unpack them, or draw its miniature.

    Archives are kept in .clsp/downloads, where the user may also put them.

    Raises:
        ConfigError: If the kind needs no fetching.
        DataError: If a download fails, or an archive is not the published one.
    """
    kind = load(KINDS, spec.kind, "kind")
    settings = spec.settings()
    if not settings.fetched:
        raise ConfigError(f'kind "{spec.kind}" reads files that are here already; nothing to fetch')
    files.mkdir(parents=True, exist_ok=True)
    if settings.source == "download":
        return _download(kind.INFO.archives, files)
    kind.draw(files, settings.seed)
    count = sum(path.is_file() for path in files.rglob("*"))
    return Outcome(counters={"files": count}, facts={"miniature": True})
