"""Tiny datasets, banks and specs for pretraining."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from clsp.config.schema import METHODS, MethodEntry, RunSpec
from clsp.data.bank import INDEX, identity
from clsp.data.encoded import EncodedWriter, open_encoded
from clsp.data.prepared import Prepared
from clsp.pretrain.feed import load_batch
from clsp.pretrain.loop import train_step
from clsp.runtime.canonical import sha256_array
from clsp.runtime.manifest import Artefact, write_manifest
from clsp.runtime.registry import settings_class

torch.set_num_threads(1)  # tiny work: more threads only wait for each other

ROOT = Path(__file__).parents[2]
SMALL = {
    "hidden": 16, "projection": 8, "queue": 24, "momentum_start": 0.9, "momentum_end": 0.99,
    "predictor_hidden": 12, "prototypes": 7, "stored": 16, "stored_from_epoch": 1,
    "frozen_prototype_epochs": 1, "neighbours": 3, "layers": 2, "heads": 2, "feed_forward": 16,
    "teacher_warmup_epochs": 2,
}  # fmt: skip
RECIPE = {
    "family": "tests", "epochs": 3, "batch_size": 8, "optimizer": "sgd", "learning_rate": 0.1,
    "learning_rate_scaling": "none", "momentum": 0.9, "weight_decay": 0.0001,
    "weight_decay_on": "all", "schedule": "epoch", "warmup_epochs": 1, "warmup_start": 0.01,
    "views": {
        "crop_scale": [0.3, 1.0], "crop_ratio": [0.75, 1.333], "interpolation": "bilinear",
        "flip": 0.5, "grayscale": 0.2, "solarize": 0.1,
        "jitter": {
            "probability": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1
        },
    },
}  # fmt: skip


NOTHING = {"bank": [], "pairs": []}  # artefacts of a run without a bank or pairs


def options_of(method: str) -> dict:
    """Options of a method as a shipped configuration gives them, made small.

    A new method is tested as soon as one configuration mentions it.
    """
    for path in [ROOT / "params.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")).get("methods", {})
        for key, entry in entries.items():
            if entry.get("method", key) == method:
                known = settings_class(METHODS, method).model_fields
                given = {k: v for k, v in entry.items() if k not in MethodEntry.model_fields}
                return {**given, **{k: v for k, v in SMALL.items() if k in known}}
    raise AssertionError(f"no shipped configuration has an entry for method {method}")


def make_spec(method="simclr", positives="augmentation", recipe=None, options=None, **changes):
    """A RunSpec of the smallest encoder; keyword arguments replace fields."""
    return RunSpec.model_validate({
        "dataset": "toy",
        "encoder": {"architecture": "resnet18", "stem": "small", "width": 2},
        "method": method,
        "method_options": {**options_of(method), **(options or {})},
        "positives": positives,
        "positives_options": {},
        "bank": "toy.mix" if positives == "bank" else None,
        "alignment_weight": 0.0 if positives == "none" else 0.5,
        "recipe": {**RECIPE, **(recipe or {})},
        "seed": 0,
        **changes,
    })  # fmt: skip


def _card(images, labels, count) -> dict:
    pixels, side = images[:count].reshape(-1, 3) / 255, images.shape[1]
    return {
        "kind": "toy", "size": side, "classes": ["a", "b", "c"],
        "splits": {"train": [0, count], "val": [count, count], "test": [count, count + 4]},
        "mean": pixels.mean(0).tolist(), "std": pixels.std(0).tolist(),
        "images_sha256": sha256_array(images), "labels_sha256": sha256_array(labels),
        "source_sha256": sha256_array(images[:count]),
    }  # fmt: skip


def make_prepared(count=20, side=8, seed=0, labels=None) -> Prepared:
    """A dataset of random images in memory: `count` for training and 4 for testing."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count + 4, side, side, 3), dtype=np.uint8)
    drawn = generator.integers(0, 3, count + 4)
    labels = (drawn if labels is None else labels).astype(np.int64)
    return Prepared(images, labels, _card(images, labels, count))


def _write(folder: Path, names: tuple[str, ...], stage: str, facts: dict) -> Artefact:
    predicate = {
        "step": stage, "externalParameters": {"spec": {}, "arguments": {}},
        "metrics": {}, "counters": {}, "facts": facts,
    }  # fmt: skip
    return write_manifest(
        folder / "manifest.json", {name: folder / name for name in names}, [], predicate
    )


def write_dataset(folder: Path, **changes) -> Artefact:
    """`make_prepared` as an artefact in a folder."""
    folder.mkdir(parents=True)
    prepared = make_prepared(**changes)
    np.save(folder / "images.npy", prepared.images)
    np.save(folder / "labels.npy", prepared.labels)
    (folder / "card.json").write_text(json.dumps(prepared.card))
    return _write(folder, ("images.npy", "labels.npy", "card.json"), "prepare-dataset", {})


def photo(generator, height, width):
    """A smooth random picture, uint8 (height, width, 3), that survives JPEG well."""
    small = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def write_encoded(folder: Path, count=20, side=8, seed=0) -> Artefact:
    """An encoded dataset of photos of many sizes: JPEG, every third one a PNG of a grey picture."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    with EncodedWriter(folder / "images.arrow") as writer:
        for number in range(count + 4):
            height, width = (int(n) for n in generator.integers(side, 4 * side, 2))
            picture, stream = Image.fromarray(photo(generator, height, width)), BytesIO()
            if number % 3 == 2:
                picture.convert("L").save(stream, "PNG")
            else:
                picture.save(stream, "JPEG")
            writer.add(stream.getvalue(), height, width)
    fitted = open_encoded(folder / "images.arrow", side, None)[:]
    labels = generator.integers(0, 3, count + 4)
    card = {**_card(fitted, labels, count), "storage": "encoded", "resize": None}
    np.save(folder / "labels.npy", labels)
    (folder / "card.json").write_text(json.dumps(card))
    return _write(folder, ("images.arrow", "labels.npy", "card.json"), "prepare-dataset", {})


def write_bank(folder: Path, prepared: Prepared, candidates=3, seed=1, side=None) -> Artefact:
    """A bank of random candidates for a dataset, of its size or another."""
    folder.mkdir(parents=True)
    anchors = len(prepared.split("train"))
    own = prepared.images.shape[1]
    shape = (anchors, candidates, side or own, side or own, 3)
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    np.save(folder / "images.npy", images)
    np.save(folder / "index.npy", np.zeros(anchors * candidates, dtype=INDEX))
    owner = identity(prepared)
    return _write(
        folder,
        ("images.npy", "index.npy"),
        "gather-bank",
        {"dataset": owner, "label_conditioned": False},
    )


def take_step(setup, index, step):
    """One optimizer step on the given anchors."""
    return train_step(setup, load_batch(setup, index, setup.moment(step).epoch), step)
