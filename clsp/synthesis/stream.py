"""A shard's images on their way to disk: one thread writes while the next batch is drawn."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from clsp.runtime.canonical import canonical_json, parse_json
from clsp.runtime.errors import DataError
from clsp.runtime.files import write_atomic
from clsp.synthesis.storage import ArrayFile

ARRAY, PROGRESS = "images.npy", "done.json"


@dataclass(frozen=True)
class Stream:
    """The shard's array on disk and how far it is filled; both survive a kill.

    Attributes:
        images: uint8 (anchors, K, H, W, 3).
    """

    folder: Path
    key: str
    images: ArrayFile

    def append(self, low: int, drawn: np.ndarray) -> int:
        """Put images in place, then record that all up to the last of them are on disk."""
        done = low + len(drawn)
        self.images.write(low, drawn)
        self.images.flush()
        write_atomic(self.folder / PROGRESS, canonical_json({"key": self.key, "done": done}))
        return done


def open_stream(folder: Path, key: str, shape: tuple[int, ...]) -> tuple[Stream, int]:
    """Continue the array that was begun for the same key, or begin one.

    Args:
        folder: Scratch folder.
        key: Digest of everything that decides the images.
        shape: (anchors, K, H, W, 3).

    Returns:
        The stream and the number of images that are already in it.

    Raises:
        DataError: If what is there was damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    array, progress = folder / ARRAY, folder / PROGRESS
    if array.is_file() and progress.is_file():
        try:
            state = parse_json(progress.read_text(encoding="utf-8"))
            if state["key"] == key:
                images, done = ArrayFile(array), state["done"]
                if images.shape != shape or not 0 <= done <= shape[0] * shape[1]:
                    raise ValueError(f"{done} images of an array {images.shape}, not {shape}")
                return Stream(folder, key, images), done
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise DataError(
                f"{folder}: damaged resume state ({error}); delete this folder to begin anew"
            ) from error
    progress.unlink(missing_ok=True)  # before the array that it describes is replaced
    return Stream(folder, key, ArrayFile.reserve(array, np.uint8, shape)), 0


def _to_host(drawn: Tensor) -> Callable[[], np.ndarray]:
    """Start a copy to the host; the result waits for it and gives the array."""
    if drawn.device.type != "cuda":
        return drawn.numpy
    host = torch.empty(drawn.shape, dtype=drawn.dtype, pin_memory=True)
    host.copy_(drawn, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> np.ndarray:
        arrived.synchronize()
        return host.numpy()

    return wait


class Writer:
    """Appends batches to a stream in another thread, one at a time.

    Drawing a batch goes on while the one before is copied and written; `put` waits when that one is
    not done yet, so at most two batches are held. An error of the thread reaches whoever calls
    `put` next or leaves the context.
    """

    def __init__(self, stream: Stream, written: Callable[[int], None]) -> None:
        """Start the thread.

        Args:
            stream: Where batches go.
            written: Told the number of images of each batch that is on disk, in order.
        """
        self._stream, self._written = stream, written
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="clsp-writer")
        self._pending: tuple[Future[int], int] | None = None

    def put(self, low: int, drawn: Tensor) -> None:
        """Hand over images uint8 (B, H, W, 3) whose first has number `low`."""
        ready = _to_host(drawn)
        self._settle()
        task = self._pool.submit(lambda: self._stream.append(low, ready()))
        self._pending = task, len(drawn)

    def _settle(self) -> None:
        """Wait for the batch in flight, and raise what went wrong with it."""
        if self._pending:
            task, count = self._pending
            task.result()
            self._pending = None
            self._written(count)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the batch in flight reach the disk, also when the job is being stopped."""
        try:
            if error is None:
                self._settle()
        finally:
            self._pool.shutdown(wait=True)
            self._stream.images.close()
