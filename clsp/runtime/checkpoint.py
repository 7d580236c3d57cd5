"""Saving and loading tensors: safetensors for results, a checked torch file for resume state."""

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clsp.runtime.canonical import sha256_file
from clsp.runtime.errors import DataError
from clsp.runtime.files import write_atomic, writing

# Seconds between resume states; a matter of the machine, so no parameter of any job.
SAVE_EVERY = float(os.environ.get("CLSP_SAVE_EVERY", "30"))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write named tensors to one safetensors file, contiguous and on the CPU."""
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(packed, path, metadata=dict(metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file.

    Returns:
        Tensors by name, on the CPU, and the file's metadata.

    Raises:
        DataError: If the file is missing, truncated or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            return tensors, dict(stream.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable checkpoint ({error})") from error


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over sorted (name, dtype, shape, C-order bytes): the same in every file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write resume state so that a crash at any point leaves the previous or the new one whole.

    Raises:
        DataError: If it cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / "state.pt.partial"
        with open(fresh, "wb") as stream:
            try:
                torch.save(dict(state), stream)
            except RuntimeError as error:  # what torch makes of a full disk
                raise DataError(f"{folder}: cannot be written ({error})") from error
            stream.flush()
            os.fsync(stream.fileno())  # before the pointer to it, which goes to the disk as well
        digest = sha256_file(fresh)
        final = folder / f"state-{digest[:16]}.pt"
        fresh.replace(final)
        write_atomic(folder / "latest", f"{final.name} {digest}\n")
        for old in folder.glob("state-*.pt"):
            if old != final:
                old.unlink()


def forget_state(folder: Path) -> None:
    """Let nothing be resumed from a folder whose state no longer fits what lies beside it."""
    (folder / "latest").unlink(missing_ok=True)


def host_copy(value: Any) -> Any:
    """A copy of state, its tensors on the CPU, that further steps leave alone.

    Copies from a GPU are queued behind the work that is on it; they hold nothing before the device
    has come that far.

    Args:
        value: Tensors within dicts, lists and tuples.
    """
    match value:
        case Tensor():
            source = value.detach()
            if not source.is_cuda:
                return source.to("cpu", copy=True)
            pinned = torch.empty_like(source, device="cpu", pin_memory=True)
            return pinned.copy_(source, non_blocking=True)
        case dict():
            return {key: host_copy(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(host_copy(item) for item in value)
    return value


class StateWriter:
    """Writes resume state in a thread, one state at a time, while training goes on.

    Args:
        folder: Of the state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(1, "state")
        self._job: Future[None] | None = None

    def begin(self, state: Mapping[str, Any], before: Callable[[], object] | None = None) -> None:
        """Copy the state and begin to write it; waits for the write before it, if that is not done.

        Args:
            state: What to save; may change as soon as this returns.
            before: Called in the thread first, for what has to be on the disk before the state is.

        Raises:
            DataError: If the write before it failed.
        """
        self.wait()
        copied = host_copy(dict(state))
        there = None
        if torch.cuda.is_initialized():
            there = torch.cuda.Event()
            there.record()
        self._job = self._pool.submit(self._write, copied, there, before)

    def _write(
        self,
        state: Mapping[str, Any],
        there: "torch.cuda.Event | None",
        before: Callable[[], object] | None,
    ) -> None:
        if there is not None:
            there.synchronize()
        if before is not None:
            before()
        save_state(self.folder, state)

    @property
    def busy(self) -> bool:
        """Whether a state is being written."""
        return self._job is not None and not self._job.done()

    def check(self) -> None:
        """Raise what went wrong with a write that has ended; never waits."""
        if not self.busy:
            self.wait()

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            DataError: If it could not be.
        """
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def close(self) -> None:
        """Wait, and end the thread; raises as `wait` does."""
        self._pool.shutdown()
        self.wait()


def load_state(folder: Path) -> dict[str, Any] | None:
    """Read what `save_state` wrote last, or None where there is nothing to resume.

    Raises:
        DataError: If the state is there but its bytes are not those that were written.
    """
    pointer = folder / "latest"
    if not pointer.exists():
        return None
    name, _, digest = pointer.read_text(encoding="utf-8", errors="replace").strip().partition(" ")
    path = folder / name
    if not path.is_file() or sha256_file(path) != digest:
        raise DataError(
            f"{path}: corrupt resume checkpoint (expected sha256 {digest[:16]}...); "
            f"delete the folder {folder} to start this job anew"
        )
    return torch.load(path, map_location="cpu", weights_only=True)
