"""What measure-bank looks at: a bank beside the images that it was drawn for, checked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from clsp.config.quality import QualitySpec
from clsp.data.bank import Bank, open_bank, other_anchors
from clsp.data.encoded import EncodedImages
from clsp.data.prepared import Prepared, open_prepared
from clsp.evaluate.cache import arrays_on_disk
from clsp.evaluate.closest import block_of
from clsp.models.features import Images, Source, open_frozen
from clsp.models.inception import InceptionSource
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.progress import Progress


class Candidates:
    """The first K candidates of some anchors, as one list of images, anchor by anchor."""

    def __init__(self, bank: np.ndarray, rows: np.ndarray, count: int) -> None:
        self.bank, self.rows, self.count = bank, rows, count
        self.shape = (len(rows) * count, *bank.shape[2:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """Pixels of some of them, uint8 (n, H, W, 3)."""
        place = np.arange(*key.indices(len(self))) if isinstance(key, slice) else key
        return self.bank[self.rows[place // self.count], place % self.count]


@dataclass(frozen=True)
class Case:
    """A bank beside the training images that it was drawn for, and the network that looks at both.

    Attributes:
        spec: What is measured.
        source: The network.
        training: All training images, uint8 (N, H, W, 3).
        labels: Of the training images, int64 (N,), or None: they are not read.
        classes: Of the dataset.
        candidates: Of the measured anchors.
        rows: Of the measured anchors, int64 (M,).
        others: Another anchor for each, int64 (M,).
        device: Where features are computed and compared.
    """

    spec: QualitySpec
    source: Source
    training: Images
    labels: np.ndarray | None
    classes: int
    candidates: Candidates
    rows: np.ndarray
    others: np.ndarray
    device: torch.device


def _check(spec: QualitySpec, bank: Artefact, dataset: Artefact, encoder: list[Artefact]) -> None:
    for flag, artefact, wanted in (("bank", bank, spec.bank), ("dataset", dataset, spec.dataset)):
        if artefact.folder.name != wanted:
            raise ConfigError(
                f'--{flag}: the spec names "{wanted}", given is "{artefact.folder.name}"'
            )
    needed = 1 if spec.encoder else 0
    if len(encoder) != needed:
        raise ConfigError(
            f"--encoder: the network {spec.network} needs {needed} encoders, found {len(encoder)}"
        )


def _check_images(spec: QualitySpec, opened: Bank, prepared: Prepared) -> None:
    opened.check_belongs(prepared)
    training = prepared.split("train")
    if opened.images.shape[2:] != training.images.shape[1:]:
        raise DataError(
            f"bank {spec.bank} has images {opened.images.shape[2:]}, dataset {spec.dataset} "
            f"{training.images.shape[1:]}"
        )
    count, k = opened.images.shape[:2]
    if spec.anchors > count:
        raise ConfigError(
            f"quality.anchors: {spec.anchors} exceeds the {count} anchors of bank {spec.bank}"
        )
    if max(spec.candidates) > k:
        raise ConfigError(
            f"quality.candidates: {max(spec.candidates)} exceeds the {k} candidates of bank "
            f"{spec.bank}"
        )
    if count < 2 or spec.anchors * min(spec.candidates) < 2:
        raise ConfigError(
            f"quality: a covariance needs two images; there are {count} training images and "
            f"{spec.anchors * min(spec.candidates)} candidates"
        )


def _labels(spec: QualitySpec, prepared: Prepared) -> np.ndarray | None:
    """Labels of the training images, where they are asked for and make two classes."""
    if spec.label_agreement is None:
        return None
    labels = prepared.split("train").labels
    if prepared.multilabel or len(np.unique(labels[labels >= 0])) < 2:
        raise ConfigError(
            f"quality.label_agreement: training images of dataset {spec.dataset} need labels of at "
            "least two classes, one for each image"
        )
    return labels


def _open_network(spec: QualitySpec, encoder: list[Artefact], device: torch.device) -> Source:
    if spec.inception is not None:
        return InceptionSource(Path(spec.inception.path), spec.inception.sha256, device)
    return open_frozen(encoder[0], str(spec.encoder), device)


def open_case(
    spec: QualitySpec, bank: Artefact, dataset: Artefact, encoder: list[Artefact]
) -> Case:
    """Open what a spec names.

    Raises:
        ConfigError: If more is asked for than there is, or an artefact is not the one of the spec.
        DataError: If a file is corrupt or the bank is of other images.
    """
    _check(spec, bank, dataset, encoder)
    opened, prepared, device = open_bank(bank), open_prepared(dataset), resolve()
    _check_images(spec, opened, prepared)
    labels = _labels(spec, prepared)
    training = prepared.split("train")
    rows = np.arange(spec.anchors, dtype=np.int64) * len(training) // spec.anchors
    others = other_anchors(bank.spec["seed"], len(training))[rows]
    if labels is not None and not (labels[rows] >= 0).any():
        raise ConfigError(
            f"quality.label_agreement: none of the {spec.anchors} anchors that are measured of "
            f"dataset {spec.dataset} has a label"
        )
    candidates = Candidates(opened.images, rows, max(spec.candidates))
    source = _open_network(spec, encoder, device)
    classes = len(prepared.classes)
    return Case(spec, source, training.images, labels, classes, candidates, rows, others, device)


@contextmanager
def decoded(case: Case, beside: Path) -> Iterator[Case]:
    """The same case, with encoded training images decoded once and kept on disk.

    They are read many times over: for features, for pairs, and for every block of the search.

    Args:
        case: From `open_case`.
        beside: Of the file that will be written; the images lie in an unnamed file beside it.

    Raises:
        DataError: If the disk has no room for them, or an image is damaged.
    """
    if not isinstance(case.training, EncodedImages):
        yield case
        return
    images, step = case.training, block_of(case.training)
    with arrays_on_disk(beside, {"images": images.shape}, np.uint8) as arrays:
        with Progress(f"decode images of {case.spec.dataset}", len(images), "image") as progress:
            for start in range(0, len(images), step):
                block = images[start : start + step]
                arrays["images"][start : start + step] = block
                progress.step(len(block))
        yield replace(case, training=arrays["images"])
