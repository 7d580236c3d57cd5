"""Stage mine-pairs: training images that a frozen encoder holds to be alike, for SePP.

SePP's similarity, threshold and number of pairs are not known. This is the stand-in of methods.md
2.14, inferred there: mutual nearest neighbours by cosine, at or above a threshold (D19).

Features are stored and pairs are mined from what was stored, so that anybody can mine them again.
"""

from typing import Any

import numpy as np
import torch

from clsp.config.schema import PairsSpec
from clsp.data.pairs import PAIR, owner_of
from clsp.data.prepared import Prepared, open_prepared
from clsp.mining.nearest import mutual, neighbours
from clsp.models.encoder import FILE
from clsp.models.features import FrozenEncoder, batch_size_for, extract, open_frozen
from clsp.models.nearest import bank_block, unit
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError
from clsp.runtime.manifest import Artefact
from clsp.runtime.progress import Progress
from clsp.runtime.stage import Input, Outcome, Output


def _check(spec: PairsSpec, dataset: Artefact, images: int) -> None:
    if dataset.folder.name != spec.dataset:
        raise ConfigError(
            f'--dataset: the spec pairs images of "{spec.dataset}", '
            f'but the dataset given is "{dataset.folder.name}"'
        )
    if spec.neighbours >= images:
        raise ConfigError(
            f"pairs.neighbours: {spec.neighbours} are asked for, but each of the {images} training "
            f'images of "{spec.dataset}" has {images - 1} others'
        )


def stored_features(frozen: FrozenEncoder, images: np.ndarray) -> np.ndarray:
    """Features as they are stored: of length 1, which keeps all of them in float16's range.

    Args:
        frozen: Its features are those of plain images.
        images: uint8 (N, H, W, 3).

    Returns:
        float16 (N, F).
    """
    found = extract(frozen, images, batch_size_for(images), f"features {frozen.run} pairs")
    stored = np.empty(found.shape, np.float16)
    step = bank_block(found)
    for start in range(0, len(found), step):  # float64 is four times as large as what is stored
        part = slice(start, start + step)
        stored[part] = unit(torch.from_numpy(found[part]).double()).numpy().astype(np.float16)
    return stored


def mine(features: np.ndarray, spec: PairsSpec, device: torch.device) -> np.ndarray:
    """Pairs among stored features.

    Args:
        features: float16 (N, F), N > spec.neighbours; read block by block.
        spec: Neighbours and threshold.
        device: Where cosines are computed.

    Returns:
        Structured (P,), P > 0, see clsp.data.pairs.PAIR, sorted.

    Raises:
        ConfigError: If no pair reaches the threshold.
    """
    passes = -(-len(features) // bank_block(features))
    with Progress("mine pairs", passes * len(features), "image") as progress:
        rows, cosines = neighbours(features, spec.neighbours, device, progress.step)
    left, right, cosine = mutual(rows, cosines)
    kept = cosine >= np.float32(spec.threshold)
    if not kept.any():
        raise ConfigError(
            f"pairs.threshold: no two of the {len(features)} training images reach "
            f"{spec.threshold}; the largest cosine of mutual neighbours is "
            f"{cosine.max(initial=-1):.6f}"
        )
    pairs = np.empty(int(kept.sum()), PAIR)
    pairs["left"], pairs["right"], pairs["cosine"] = left[kept], right[kept], cosine[kept]
    return pairs


def _metrics(pairs: np.ndarray, prepared: Prepared) -> tuple[dict[str, float], int]:
    """What is reported of the pairs, and how many anchors have a partner."""
    labels = prepared.split("train").labels
    paired = len(np.unique([pairs["left"], pairs["right"]]))
    metrics = {
        "pairs/count": len(pairs),
        "pairs/anchors_share": paired / len(labels),
        "pairs/mean_cosine": float(pairs["cosine"].mean(dtype=np.float64)),
    }
    sides = labels[pairs["left"]], labels[pairs["right"]]
    known = (sides[0] >= 0) & (sides[1] >= 0)
    if known.any():  # mining never looks at labels; this is for the reader
        metrics["analysis/label_agreement"] = float((sides[0] == sides[1])[known].mean())
    return metrics, paired


def mine_pairs(
    spec: PairsSpec, encoder: Input, dataset: Input, pairs: Output, features: Output
) -> Outcome:
    """Pair the training images of a dataset by the features of a finished run's encoder.

    Args:
        spec: Dataset, run, number of neighbours and threshold.
        encoder: The pretraining run that the spec names; its own dataset may be another.
        dataset: The prepared dataset that the spec names.
        pairs: Structured (P,) of left, right and cosine, npy.
        features: float16 (N, F), npy.

    Raises:
        ConfigError: If run or dataset are not those of the spec, the dataset is too small, or no
            pair reaches the threshold.
        DataError: If a file is corrupt or a feature is not finite.
    """
    frozen, prepared = open_frozen(encoder, spec.run, resolve()), open_prepared(dataset)
    images = prepared.split("train").images
    _check(spec, dataset, len(images))
    stored = stored_features(frozen, images)
    np.save(features, stored, allow_pickle=False)
    del stored
    mined = mine(np.load(features, mmap_mode="r", allow_pickle=False), spec, frozen.device)
    np.save(pairs, mined, allow_pickle=False)
    metrics, paired = _metrics(mined, prepared)
    facts: dict[str, Any] = {
        "dataset": owner_of(prepared),
        "run": spec.run,
        "encoder_sha256": encoder.subjects[FILE]["digest"]["sha256"],
        "paired_anchors": paired,
        "label_conditioned": not encoder.predicate["facts"]["label_free"],
    }
    return Outcome(metrics, {"images": len(images), "pairs": len(mined)}, facts)
