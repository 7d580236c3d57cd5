"""Features of one encoder on every dataset, in one file: extracted once, read by all that judge.

The file is a safetensors file of float32 (N, F) tensors: "<dataset>/train", "<dataset>/val" where
there is one, "<dataset>/test", and "<dataset>/train.mirrored" for mirror images. Rows are those of
the labelled images of a split, in the order of the dataset's arrays (`labelled.Part`): features of
images without a label would be read by nothing.
"""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from clsp.evaluate.labelled import Task
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact

FILE = "features.safetensors"
STAGE = "extract-features"


def name_of(dataset: str, split: str, mirrored: bool = False) -> str:
    """Name of a tensor."""
    return f"{dataset}/{split}.mirrored" if mirrored else f"{dataset}/{split}"


def _reserve(stream: IO[bytes], size: int, path: Path) -> None:
    """Take the space on disk at once: a mapped file that runs out of it kills the process."""
    if size == 0:
        return
    try:
        os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        raise DataError(f"{path}: no room for {size} bytes beside it ({error.strerror})") from error


@contextmanager
def arrays_on_disk(
    path: Path, shapes: dict[str, tuple[int, ...]], dtype: type = np.float32
) -> Iterator[dict[str, np.ndarray]]:
    """Arrays to fill that lie in an unnamed file, so that memory does not grow with them.

    Args:
        path: Of the file that will be written; the arrays lie beside it.
        shapes: Of each, none of them empty.
        dtype: Of their numbers.

    Yields:
        Writable arrays by name.

    Raises:
        DataError: If the disk has no room for them.
    """
    size = np.dtype(dtype).itemsize
    starts = np.cumsum([0, *(size * math.prod(shape) for shape in shapes.values())])
    with TemporaryFile(dir=path.parent) as stream:
        _reserve(stream, int(starts[-1]), path)
        yield {
            name: np.memmap(stream, dtype, "r+", int(start), shape)
            for start, (name, shape) in zip(starts[:-1], shapes.items(), strict=True)
        }


@contextmanager
def feature_file(
    path: Path, shapes: dict[str, tuple[int, int]], metadata: dict[str, str]
) -> Iterator[dict[str, np.ndarray]]:
    """Arrays to fill, which become a feature file when all went well.

    Args:
        path: The file.
        shapes: (N, F) of each tensor, N > 0.
        metadata: Of the file.

    Yields:
        Writable float32 arrays by name.

    Raises:
        DataError: If the disk has no room for them.
    """
    with arrays_on_disk(path, shapes) as arrays:
        yield arrays
        try:
            save_file(arrays, path, metadata)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path}: cannot be written ({error})") from error


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors of a safetensors file begin, bytes, and what its header says of each.

    The library reads tensors into memory; the format is 8 bytes of the header's length, the header
    and then the tensors (https://huggingface.co/docs/safetensors).
    """
    with open(path, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return 8 + size, json.loads(stream.read(size))


class Features:
    """Features that the stage extract-features made."""

    def __init__(self, artefact: Artefact) -> None:
        facts = artefact.predicate["facts"]
        self.path = artefact.path(FILE)
        self.run = artefact.folder.name
        self.own: str | None = artefact.spec.get("own")
        self.source: str = facts["source"]
        self.epoch: int | None = facts["epoch"]  # last one of the pretraining; None of a floor
        self.resolutions: dict[str, int] = facts["resolutions"]  # side of the images, pixels

    def get(self, dataset: str, split: str, mirrored: bool = False) -> np.ndarray:
        """Features of the labelled images of one split, float32 (N, F).

        They are mapped: the system reads what is touched and drops it again when memory is short.
        What is written into them stays in memory.

        Raises:
            DataError: If the file has no such features or is damaged.
        """
        name = name_of(dataset, split, mirrored)
        try:
            with safe_open(self.path, framework="np") as stored:  # checks sizes and places
                known = list(stored.keys())
            start, told = _header(self.path)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{self.path}: not a readable feature file ({error})") from error
        if name not in known:
            raise DataError(f'{self.path}: has no features "{name}"; it has {", ".join(known)}')
        shape, kind = tuple(told[name]["shape"]), told[name]["dtype"]
        if kind != "F32" or len(shape) != 2:
            raise DataError(f"{self.path}: {name}: expected F32 (N, F), found {kind} {shape}")
        place = start + told[name]["data_offsets"][0]
        return np.memmap(self.path, np.dtype("<f4"), "c", place, shape)

    def of(self, task: Task, split: str, mirrored: bool = False) -> np.ndarray:
        """Features of one split of a task, checked against its images.

        Raises:
            DataError: If there are none, or of another number of images.
        """
        found, expected = self.get(task.name, split, mirrored), len(getattr(task, split))
        if len(found) != expected:
            raise DataError(
                f"{self.path}: {name_of(task.name, split, mirrored)}: features of {len(found)} "
                f"images, but the split has {expected} labelled ones; delete it and run snakemake "
                "again"
            )
        return found

    def pool(self, task: Task) -> np.ndarray:
        """Features of train and val together, in this order, float32 (N, F).

        Mapped where there is no val, else a copy.
        """
        train = self.of(task, "train")
        return np.concatenate([train, self.of(task, "val")]) if len(task.val) else train


def open_features(artefact: Artefact, run: str) -> Features:
    """Open the features of a run or floor.

    Args:
        artefact: Made by the stage extract-features.
        run: The slug that the spec names; the artefact's folder has this name.

    Raises:
        ConfigError: If the artefact is another run's, or holds no features.
        DataError: If its manifest lacks what is needed.
    """
    if artefact.stage != STAGE:
        raise ConfigError(
            f"--features {artefact.manifest}: expected features of {STAGE}, "
            f"found an artefact of {artefact.stage}"
        )
    if artefact.folder.name != run:
        raise ConfigError(
            f'--features {artefact.manifest}: holds features of "{artefact.folder.name}", '
            f'but the spec judges "{run}"'
        )
    try:
        return Features(artefact)
    except KeyError as error:
        raise DataError(f"{artefact.manifest}: lacks {error}") from error
