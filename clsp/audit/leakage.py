"""Duplicates between training and test images, counted again from the images themselves.

A second path beside clsp/data/duplicates.py: digests come from the pixels, as far as the stored
images give them, and sets are compared as arrays.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clsp.audit.items import Items, digest_of, read_items
from clsp.audit.mapped import rows_of
from clsp.config.foreign import expand_imported
from clsp.config.grid import Run
from clsp.config.measured import measured_banks
from clsp.config.schema import Params
from clsp.data.decoders import each
from clsp.data.pictures import decode
from clsp.runtime.canonical import read_json
from clsp.runtime.manifest import Artefact

SHORT = 16  # hex digits of a digest by which candidates of a bank are compared
Pair = tuple[str, str, str]  # kind, what is trained on, test split


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset as its own images describe it.

    Attributes:
        items: Its list of images.
        size: Side of its fitted images, pixels.
        splits: Range of rows of each split.
        differing: Rows whose digest in the list is not that of the image, with the column's name.
    """

    items: Items
    size: int
    splits: dict[str, list[int]]
    differing: list[tuple[int, str]] = field(default_factory=list)

    def digests(self, column: str, splits: tuple[str, ...], digits: int) -> np.ndarray:
        """Digests of the images of some splits, (N,), cut to their first digits."""
        listed = getattr(self.items, column)
        ranges = [self.splits[name] for name in splits]
        return np.array([d[:digits] for a, b in ranges for d in listed[a:b]], dtype=f"S{digits}")


def _of_arrays(path: Path) -> Iterator[str]:
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    for row in rows_of(images):
        yield digest_of(np.asarray(images[row]))


def _of_file(path: Path, content: pa.Scalar) -> str:
    return digest_of(np.asarray(decode(BytesIO(content.as_buffer()), path)))


def _of_files(path: Path) -> Iterator[str]:
    """Digests of encoded images at their own resolution; a few are decoded at a time."""
    with pa.memory_map(str(path)) as mapped:
        reader = pa.ipc.open_file(mapped)
        for number in range(reader.num_record_batches):
            yield from each(partial(_of_file, path), reader.get_batch(number).column("image"))


def open_dataset(artefact: Artefact, step: Callable[[], None]) -> Dataset:
    """Read a dataset's list, and compare every digest that its images can give.

    Arrays give the digests of fitted images, encoded images those at their own resolution.

    Args:
        artefact: Made by the stage prepare-dataset.
        step: Called after every image.

    Raises:
        OSError, ValueError, KeyError, TypeError, ClspError: If it cannot be read.
    """
    items = read_items(artefact.folder / "items.csv")
    card = read_json(artefact.folder / "card.json")
    encoded = "images.arrow" in artefact.subjects
    column, file = ("source", "images.arrow") if encoded else ("stored", "images.npy")
    digests = (_of_files if encoded else _of_arrays)(artefact.folder / file)
    listed = getattr(items, column)
    differing = []
    for row, (found, told) in enumerate(zip(digests, listed, strict=True)):
        if found != told:
            differing.append((row, column))
        step()
    return Dataset(items, int(card["size"]), dict(card["splits"]), differing)


def bank_digests(artefact: Artefact) -> tuple[np.ndarray, int]:
    """Digests of a bank's candidates, (N * K,), and their side in pixels."""
    images = np.load(artefact.folder / "images.npy", mmap_mode="r", allow_pickle=False)
    found = [digest_of(c)[:SHORT] for row in rows_of(images) for c in np.asarray(images[row])]
    return np.array(found, dtype=f"S{SHORT}"), int(images.shape[3])


def count_in(trained: list[np.ndarray], tested: list[np.ndarray]) -> int:
    """Test images of which any digest is among the training digests of the same kind."""
    hits = [np.isin(test, train) for train, test in zip(trained, tested, strict=True)]
    return int(np.logical_or.reduce(hits).sum())


def count_dataset(train: Dataset, splits: tuple[str, ...], test: Dataset) -> int:
    """Images of the test split that are also among some splits of a dataset."""
    columns = ["source", *(["stored"] if train.size == test.size else [])]
    both = [
        [data.digests(column, names, 32) for column in columns]
        for data, names in ((train, splits), (test, ("test",)))
    ]
    return count_in(*both)


def count_bank(digests: np.ndarray, size: int, test: Dataset) -> int:
    """Images of the test split that are also among the candidates of a bank."""
    columns = ["source", *(["stored"] if size == test.size else [])]
    tested = [test.digests(column, ("test",), SHORT) for column in columns]
    return count_in([digests] * len(columns), tested)


def pairs_wanted(params: Params, runs: dict[str, Run]) -> dict[Pair, tuple[str, ...]]:
    """Every comparison that must be on record, with the splits of the set that is trained on."""
    tasks = params.evaluation.transfer.datasets if params.evaluation.transfer else ()
    specs: list[Any] = [run.spec for run in runs.values()]
    encoders = [*runs.values(), *expand_imported(params).values()]
    tests = {each.judged_on for each in encoders} | {*tasks}
    banks = {spec.bank for spec in specs if spec.bank} | {*measured_banks(params)}
    trained = {name for each in encoders for name in (each.spec.dataset, each.judged_on)}
    trained |= {params.pairs[spec.pairs].dataset for spec in specs if spec.pairs}
    for bank in (params.banks[name] for name in banks):
        trained |= {bank.dataset, params.denoisers[bank.denoiser].dataset}
    found = {("dataset", f"{name}/train", t): ("train",) for name in trained for t in tests}
    found |= {("bank", name, test): () for name in banks for test in tests}
    return found | {("task", f"{task}/train+val", task): ("train", "val") for task in tasks}
