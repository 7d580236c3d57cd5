"""Prepared and fetched datasets of the tiny tree."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tree_params import CLASSES, COPIED, COPY, SIDE, TEST, TRAIN
from tree_results import stream

from clsp.config.catalog import Archive, dataset_info
from clsp.config.plan import fetch_job, is_fetched, prepare_job
from clsp.config.schema import Params
from clsp.data.encoded import EncodedWriter, encode
from clsp.runtime.canonical import canonical_json, sha256_array, sha256_text
from clsp.runtime.manifest import Artefact

SPLITS = {"train": [0, TRAIN], "val": [TRAIN, TRAIN], "test": [TRAIN, TRAIN + TEST]}


def lines_sha256(lines: list[str]) -> str:
    """Sha256 over lines, each with its line feed."""
    return sha256_text("".join(f"{line}\n" for line in lines))


def list_of(images: np.ndarray, labels: np.ndarray) -> list[list[str]]:
    """The lines of items.csv; images are stored at their own resolution."""
    lines = []
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        split = "train" if row < TRAIN else "test"
        digest = hashlib.sha256(image.tobytes()).hexdigest()[:32]
        shown = " ".join(map(str, np.flatnonzero(label))) if labels.ndim == 2 else str(label)
        lines.append([split, f"{split}/{row}.png", shown, digest, digest])
    return lines


def arrow_of(base: Path, images: np.ndarray) -> bytes:
    """Bytes of an Arrow file of images."""
    path = base / "images.arrow"
    with EncodedWriter(path) as writer:
        for image in images:
            writer.add(encode(Image.fromarray(image), None), SIDE, SIDE)
    content = path.read_bytes()
    path.unlink()
    return content


def archive_record(archive: Archive) -> dict[str, Any]:
    """What fetching an archive records, as if the publisher's file had come."""
    sha256 = archive.sha256 or sha256_text(archive.name)
    return {
        "name": archive.name,
        "url": archive.urls[0],
        "size": archive.size or 1,
        "sha256": sha256,
        "md5": archive.md5 or "0" * 32,
        "confirmed": archive.sha256 is not None,
        "contents": [{"members": {m.pattern: m.count or 1 for m in archive.members}}],
    }


class Preparing:
    """Writes datasets; the part of TreeBuilder that knows images and labels."""

    base: Path
    results: Path
    params: Params
    write: Callable[..., Artefact]  # one artefact; TreeBuilder's

    def metric(self, task: str) -> str:
        """How a dataset is judged; "target-mini" by another metric than its kind says."""
        kind = self.params.datasets[task].kind
        return "mean_per_class" if task == "target-mini" else dataset_info(kind).metric

    def labels(self, task: str) -> np.ndarray:
        """Test labels of a dataset."""
        return self._labels(task)[TRAIN:]

    def _labels(self, task: str) -> np.ndarray:
        classes = np.arange(TRAIN + TEST, dtype=np.int64) % CLASSES
        if self.metric(task) != "map11":
            return classes
        shown = stream("labels", task).random((len(classes), CLASSES)) < 0.4
        return (shown | np.eye(CLASSES, dtype=bool)[classes]).astype(np.uint8)

    @staticmethod
    def _counts(labels: np.ndarray) -> list[int]:
        """Images of each class."""
        shown = labels if labels.ndim == 2 else np.eye(CLASSES, dtype=int)[labels]
        return [int(count) for count in shown.sum(axis=0)]

    def fetched(self, name: str) -> list[Artefact]:
        """The files of a dataset that is fetched, from the archives of the catalogue."""
        if not is_fetched(self.params, name):
            return []
        known = dataset_info(self.params.datasets[name].kind).archives
        facts = {"archives": [archive_record(archive) for archive in known]}
        files = {"files/images/0.png": "an image"}
        return [self.write(fetch_job(self.params, name), f"fetched/{name}", files, [], facts=facts)]

    def dataset(self, name: str) -> Artefact:
        """A prepared dataset of random images; COPIED has one of digits in its test split."""
        spec, count = self.params.datasets[name], TRAIN + TEST
        shape = (count, SIDE, SIDE, 3)
        images = stream("dataset", name).integers(0, 255, shape, dtype=np.uint8)
        if name == COPIED:
            images[COPY] = np.load(self.results / "data/digits/images.npy")[2]
        labels = self._labels(name)
        lines = list_of(images, labels)
        names = [line[1] for line in lines]
        card = {
            "title": "Tiny",
            "size": SIDE,
            "resize": spec.resize,
            "storage": "encoded" if spec.encoded else "arrays",
            "multilabel": labels.ndim == 2,
            "drawing": "",
            "unlabelled": 0,
            "classes": [f"class {c}" for c in range(CLASSES)],
            "splits": SPLITS,
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
            "counts": {split: self._counts(labels[a:b]) for split, (a, b) in SPLITS.items()},
            "license": "CC0",
            "source": "drawn",
            "citation": "none",
            "note": "",
            "miniature": False,
            "metric": self.metric(name),
            "images_sha256": sha256_array(images),
            "labels_sha256": sha256_array(labels),
            "items_sha256": {split: lines_sha256(names[a:b]) for split, (a, b) in SPLITS.items()},
            "source_sha256": lines_sha256([line[3] for line in lines[:TRAIN]]),
        }
        stored = {"images.npy": images}
        if spec.encoded:
            stored = {"images.arrow": arrow_of(self.base, images)}
        header = ["split", "name", "label", "source", "stored"]
        files = {
            **stored,
            "labels.npy": labels,
            "items.csv": "".join(",".join(line) + "\n" for line in [header, *lines]),
            "card.json": canonical_json(card),
        }
        job = prepare_job(self.params, name)
        return self.write(job, f"data/{name}", files, self.fetched(name))
