"""Files of weights that somebody else made: the only way in.

A file may be a safetensors file, or what torch.save has written since version 1.6: a zip file that
holds a state dict of tensors, plain or under the key `state_dict` or `model`. Nothing else is read.

The file is copied and hashed in one pass, so that what is judged, hashed and read are the same
bytes. This process never unpickles: of a zip file it reads the table of contents, and a process of
its own (foreign_child.py: weights_only, limits on memory, time and output, no child process, no
network) turns the rest into safetensors.
"""

import hashlib
import os
import resource
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clsp.runtime.canonical import CHUNK, parse_json, read_json
from clsp.runtime.checkpoint import load_tensors
from clsp.runtime.errors import DataError
from clsp.runtime.foreign_child import KINDS

CHILD = Path(__file__).with_name("foreign_child.py")
LARGEST = 8 << 30  # bytes of a file; encoders and denoisers have far less
LARGEST_HEADER = 16 << 20  # of a safetensors file
LARGEST_PICKLE = 16 << 20  # names, shapes and offsets of a state dict
MOST_ENTRIES = 65535
SLACK = 1 << 30  # bytes of memory beyond twice the file
PARALLEL = "module."
NAMED = 4  # tensors that a message lists
LONGEST = 300  # characters of a tensor's name, and of what the child says
SECONDS = 120  # and one more for every 10 MB
ZIP, PICKLE, GZIP = b"PK\x03\x04", b"\x80", b"\x1f\x8b"
HINTS = {  # beginnings that people meet
    PICKLE: "a bare pickle, as torch.save wrote before version 1.6; where you trust it, load it "
    "and save it again with a current torch, or as safetensors",
    GZIP: "a gzip archive; unpack it first",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself",
    b"<": "a web page or XML; a download that asks for confirmation gives one",
}
EXPECTED = "expected a safetensors file or a zip file of torch.save"


@dataclass(frozen=True)
class Foreign:
    """A foreign file that was read.

    Attributes:
        path: As given.
        resolved: Where it lay, links followed.
        sha256: Of the bytes that were read.
        size: In bytes.
        container: "safetensors" or "torch".
        nested: Key that the state dict lay under, or None.
        beside: Other keys there, which were not looked at.
        tensors: By name, on the CPU.
    """

    path: Path
    resolved: Path
    sha256: str
    size: int
    container: str
    nested: str | None
    beside: list[str]
    tensors: dict[str, Tensor]

    def facts(self) -> dict[str, object]:
        """What a manifest says of the file."""
        return {
            "path": str(self.path),
            "resolved": str(self.resolved),
            "sha256": self.sha256,
            "size": self.size,
            "container": self.container,
            "nested": self.nested,
            "beside": self.beside,
        }


def _copy(path: Path, target: Path) -> tuple[str, int]:
    """Copy a file and hash it on the way: its sha256 and size."""
    digest, size = hashlib.sha256(), 0
    try:
        # Without blocking, so that opening a pipe that nobody fills does not wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb") as source, open(target, "xb") as copy:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise DataError(f"{path}: not a regular file; {EXPECTED}")
            while block := source.read(CHUNK):
                size += len(block)
                if size > LARGEST:
                    raise DataError(f"{path}: larger than the {LARGEST} bytes that are read")
                digest.update(block)
                copy.write(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest(), size


def _check_header(path: Path, copy: Path, size: int) -> None:
    """Names and sizes in a safetensors header; the reader itself checks offsets."""
    with open(copy, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise DataError(
                f"{path}: truncated or no safetensors file: its header claims {length} bytes, the "
                f"file has {size}"
            )
        try:
            header = parse_json(stream.read(length).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: header of safetensors cannot be read ({error})") from error
    if not isinstance(header, dict):
        raise DataError(f"{path}: header of safetensors is no table of tensors")


def _problem(archive: zipfile.ZipFile, size: int) -> str | None:
    """What speaks against a zip file, by its table of contents alone."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(names) > MOST_ENTRIES:
        return f"has {len(names)} entries, expected at most {MOST_ENTRIES}"
    if len(set(names)) < len(names):
        return f'has the entry "{next(n for n in names if names.count(n) > 1)}" twice'
    if len({name.partition("/")[0] for name in names}) != 1:
        return "has several folders, expected the one of torch.save"
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0].filename.count("/") != 1:
        return "has no data.pkl; it is not of torch.save (TorchScript and plain zips are not read)"
    if any(name.endswith("/constants.pkl") for name in names):
        return "is a TorchScript archive, expected a state dict"
    if pickles[0].file_size > LARGEST_PICKLE:
        return f"has a pickle of {pickles[0].file_size} bytes, expected {LARGEST_PICKLE} at most"
    # torch.save never compresses, so that what is declared fits into the file. A bomb does not.
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            return f'has the compressed or encrypted entry "{entry.filename}"'
        if entry.file_size != entry.compress_size:
            return f'has the entry "{entry.filename}" with two sizes'
    declared = sum(entry.file_size for entry in entries)
    return f"declares {declared} bytes, but has {size}" if declared > size else None


def _check_zip(path: Path, copy: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(copy) as archive:
            problem = _problem(archive, size)
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
        raise DataError(f"{path}: truncated or damaged zip file ({error}); {EXPECTED}") from error
    if problem:
        raise DataError(f"{path}: {problem}")


def _limits(size: int, seconds: int) -> None:
    """Set in the child before anything of it runs."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    written = size + LARGEST_HEADER
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, written))


def _convert(path: Path, copy: Path, room: Path, size: int) -> dict[str, object]:
    """Let the child turn a zip file into safetensors; its answer."""
    seconds, answer = SECONDS + size // 10_000_000, room / "answer.json"
    files = [str(copy), str(room / "tensors.safetensors"), str(answer), str(2 * size + SLACK)]
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HOME": str(room)}
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(CHILD), *files],
            cwd=room,
            env={**kept, **quiet, "TMPDIR": str(room)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            preexec_fn=lambda: _limits(size, seconds),
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{path}: not read within {seconds} seconds") from None
    if not answer.is_file():
        raise DataError(
            f"{path}: the process that reads it ended with code {done.returncode} and no answer; "
            "the file is damaged, or asks for more memory or time than its size justifies"
        )
    found = read_json(answer)
    if "refused" in found:
        raise DataError(f"{path}: {str(found['refused'])[:LONGEST]}")
    return found


def _check_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    if not tensors:
        raise DataError(f"{path}: holds no tensor")
    for name, tensor in tensors.items():
        if len(name) > LONGEST or not (name.isascii() and name.isprintable()):
            raise DataError(f"{path}: {name[:LONGEST]!a} is no name of a tensor")
        if tensor.dtype not in KINDS:
            raise DataError(f'{path}: "{name}" holds {tensor.dtype}, expected a common type')
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise DataError(f'{path}: "{name}" holds NaN, infinity or more than float32 can')


@contextmanager
def _copied(path: Path) -> Iterator[tuple[Path, Path, str, int]]:
    """A room of one's own with a copy of the file: room, copy, sha256 and size."""
    with tempfile.TemporaryDirectory(prefix="clsp-foreign-") as name:
        room = Path(name)
        yield room, room / "file", *_copy(path, room / "file")


def _judge(path: Path, copy: Path, size: int, legacy: bool) -> str:
    """The container of a file by its first bytes, checked from outside."""
    with open(copy, "rb") as stream:
        start = stream.read(64)
    if start.startswith(ZIP):
        _check_zip(path, copy, size)
        return "torch"
    if legacy and start.startswith(PICKLE):
        return "torch"
    for beginning, hint in HINTS.items():
        if start.lstrip().startswith(beginning) and start[8:9] != b"{":
            raise DataError(f"{path}: looks like {hint}; {EXPECTED}")
    if len(start) > 9 and start[8:9] == b"{":
        _check_header(path, copy, size)
        return "safetensors"
    raise DataError(f"{path}: begins with {start[:8]!r} ({size} bytes); {EXPECTED}")


def load_foreign(path: Path, sha256: str | None = None, legacy: bool = False) -> Foreign:
    """Read the tensors of a foreign file.

    Args:
        path: The file; a link is followed, and where it led is part of the result.
        sha256: What its bytes must hash to; None: whatever they do.
        legacy: Whether the child may also read what torch.save wrote before version 1.6.

    Raises:
        DataError: Naming the file, what was found and what was expected. Nothing of a file with
            another sha256 is looked at.
    """
    with _copied(path) as (room, copy, found, size):
        if sha256 is not None and found != sha256:
            raise DataError(f"{path}: sha256 {found} ({size} bytes), expected {sha256}")
        container = _judge(path, copy, size, legacy)
        told: dict[str, object] = {}
        if container == "torch":
            told, copy = _convert(path, copy, room, size), room / "tensors.safetensors"
        try:
            tensors, _ = load_tensors(copy)
        except DataError as error:
            raise DataError(f"{path}: {str(error).partition(': ')[2]}") from None
    _check_tensors(path, tensors)
    nested, beside = told.get("nested"), told.get("beside", [])
    resolved = path.resolve()
    return Foreign(path, resolved, found, size, container, nested, beside, tensors)


def without_prefix(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the "module." that DataParallel puts before every one of them.

    Raises:
        DataError: If only some names have it.
    """
    marked = [name for name in tensors if name.startswith(PARALLEL)]
    if not marked:
        return tensors
    if len(marked) < len(tensors):
        other = next(name for name in tensors if name not in marked)
        raise DataError(f'{path}: "{marked[0]}" begins with {PARALLEL}, but "{other}" does not')
    return {name.removeprefix(PARALLEL): tensor for name, tensor in tensors.items()}


def compare_names(
    path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str
) -> None:
    """Refuse tensors that are not, by name and shape, those that are expected.

    Args:
        path: To blame.
        found: Tensors of the file.
        expected: Tensors of the network, under the file's names.
        what: The network, in words.

    Raises:
        DataError: Naming the first few that are missing, left over or of another shape.
    """
    shapes = {
        name: (tuple(found[name].shape), tuple(expected[name].shape))
        for name in expected
        if name in found
    }
    whole = [
        f"{name} ({found[name].dtype})"
        for name in shapes
        if expected[name].is_floating_point() != found[name].is_floating_point()
    ]
    problems = {
        "lacks": [name for name in expected if name not in found],
        "has besides": [name for name in found if name not in expected],
        "has in another shape": [
            f"{name} {mine} instead of {wanted}"
            for name, (mine, wanted) in shapes.items()
            if mine != wanted
        ],
        "has numbers of another kind in": whole,
    }
    told = [f"{word} {_few(names)}" for word, names in problems.items() if names]
    if told:
        raise DataError(f"{path}: is not {what}: it {'; it '.join(told)}")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
