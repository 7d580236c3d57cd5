"""Array files whose declared size is compared with their own before anything is read.

A few bytes may claim to hold more than any memory. What the suite writes is exact: an npy file is
its header and its values, a npz file holds such members uncompressed, each name once.
"""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

LARGEST = 1 << 30  # bytes of labels or of an index: those of ImageNet-1k have a third of it


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    old = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _check(stream: IO[bytes], size: int, name: str) -> None:
    shape, dtype = _header(stream)
    if dtype.hasobject:
        raise ValueError(f"{name}: an array of Python objects ({dtype})")
    told = stream.tell() + math.prod(shape) * dtype.itemsize
    if told != size:
        raise ValueError(f"{name}: {told} bytes told of {size}")


def _bytes(path: Path) -> int:
    """Bytes of a file; a pipe, which might never answer, is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return path.stat().st_size


def check_npy(path: Path) -> None:
    """Refuse an npy file that is longer or shorter than its header says, or holds objects.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no such file.
    """
    size = _bytes(path)
    with open(path, "rb") as stream:
        _check(stream, size, path.name)


def check_npz(path: Path) -> None:
    """Refuse a npz file with anything but plain arrays, stored as they are, each name once.

    Raises:
        OSError, zipfile.BadZipFile, EOFError, RuntimeError: If it cannot be read.
        ValueError: If it is no such file.
    """
    _bytes(path)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise ValueError("a member that is there twice")
        if members and min(member.header_offset for member in members) != 0:
            raise ValueError("bytes in front of the archive")
        for member in members:
            name, size = member.filename, member.file_size
            if not name.endswith(".npy") or "/" in name:
                raise ValueError(f"a member {name!r}")
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != size:
                raise ValueError(f"{name} of {size} bytes from {member.compress_size}")
            with archive.open(member) as stream:
                _check(stream, size, name)


def load_npy(path: Path, **how: Any) -> np.ndarray:
    """Read an npy file; arguments as of numpy.load.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is another thing than it says, or is read whole and too large for that.
    """
    check_npy(path)
    if "mmap_mode" not in how and (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path.name}: {size} bytes, more than {LARGEST} that are read at once")
    return np.load(path, allow_pickle=False, **how)
