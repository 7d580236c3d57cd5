"""Stage measure-bank: how good a bank's candidates are, as far as numbers can say.

Frechet distance to the training images, likeness to the own anchor, diversity, memorisation and,
for analysis alone, whether a probe sees the anchor's class. Features of all images lie on disk and
are compared block by block, so that memory grows with neither anchors nor training images.
"""

from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

import numpy as np

from clsp.config.quality import QualitySpec
from clsp.evaluate import closest
from clsp.evaluate.cache import arrays_on_disk
from clsp.evaluate.frechet import Moments, moments_of
from clsp.evaluate.linear import linear_logits, load_samples, train_linear
from clsp.evaluate.metrics import write_arrays
from clsp.evaluate.quality_case import Case, decoded, open_case
from clsp.evaluate.quality_numbers import Measured, numbers_of, pairs_of
from clsp.models.features import Images, batch_size_for, extract
from clsp.models.inception import InceptionSource
from clsp.runtime.canonical import canonical_json
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Input, Inputs, Outcome, Output

SCHEMA = 1
TRAINING, DRAWN, MIRRORED = "training", "candidates", "mirrored"  # arrays of features
PARTS = ("mean", "covariance")


def _describe(case: Case, images: Images, what: str, into: np.ndarray) -> None:
    source = case.source
    size = source.batch if isinstance(source, InceptionSource) else batch_size_for(images)
    extract(source, images, size, f"features of {what} {case.spec.bank}", what == MIRRORED, into)


def _nearest(
    case: Case, queries: Any, keys: Any, space: closest.Space, about: str
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest training image of every candidate, and the nearest other one of that.

    Returns:
        Rows of training images, two int64 (M * K,).
    """
    label = f"by {about} {case.spec.bank}"
    first = closest.nearest(queries, keys, space, case.device, label=f"nearest {label}")
    found, place = np.unique(first, return_inverse=True)
    second = closest.nearest(
        closest.Rows(keys, found), keys, space, case.device, found, label=f"neighbours {label}"
    )
    return first, second[place]


def _predict(
    case: Case, training: np.ndarray, drawn: np.ndarray, mirrored: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The probe's classes of candidates and anchors; nothing where no label is read."""
    probe, labels = case.spec.label_agreement, case.labels
    if probe is None or labels is None:
        return {}
    known = np.flatnonzero(labels >= 0)
    parts = [training[known], *([] if mirrored is None else [mirrored])]
    samples = load_samples(parts, labels[known], case.classes, case.device)
    label = f"linear {case.spec.bank}"
    weight, bias = train_linear(probe, samples, seed=case.spec.seed, label=label)
    shape, step = (len(case.rows), case.candidates.count), closest.block_of(drawn)
    guesses = [
        linear_logits(np.array(drawn[at : at + step]), weight, bias).argmax(1)
        for at in range(0, len(drawn), step)
    ]
    return {
        "labels": labels[case.rows],
        "predicted": np.concatenate(guesses).reshape(shape),
        "anchor_predicted": linear_logits(training[case.rows], weight, bias).argmax(1),
    }


def _measure(case: Case, arrays: dict[str, np.ndarray]) -> Measured:
    """Everything about single candidates, from features on disk and from pixels."""
    training, drawn, images = arrays[TRAINING], arrays[DRAWN], case.candidates
    count, k = len(case.rows), images.count
    place = np.arange(len(images))
    first, second = pairs_of(k)
    left = (np.arange(count)[:, None] * k + first).ravel()
    right = (np.arange(count)[:, None] * k + second).ravel()
    near, next_near = _nearest(case, drawn, training, closest.Features(), "features")
    like, next_like = _nearest(case, images, case.training, closest.Pixels(), "pixels")

    def pairs(measure: Any, mine: Any, one: Any, beside: Any, other: Any) -> np.ndarray:
        """One value for every candidate, or pair of them, in a row for each anchor."""
        values = measure(closest.Rows(mine, one), closest.Rows(beside, other))
        return values.reshape(count, -1 if values.size else 0)

    alike, apart = closest.cosines, closest.squared_differences
    own, random = np.repeat(case.rows, k), np.repeat(case.others, k)
    return Measured(
        rows=case.rows,
        others=case.others,
        pixels=int(np.prod(images.shape[1:])),
        own_cosine=pairs(alike, drawn, place, training, own),
        random_cosine=pairs(alike, drawn, place, training, random),
        own_squares=pairs(apart, images, place, case.training, own),
        random_squares=pairs(apart, images, place, case.training, random),
        pair_cosine=pairs(alike, drawn, left, drawn, right),
        pair_squares=pairs(apart, images, left, images, right),
        nearest_feature=near.reshape(count, k),
        nearest_cosine=pairs(alike, drawn, place, training, near),
        neighbour_cosine=pairs(alike, training, near, training, next_near),
        nearest_pixel=like.reshape(count, k),
        nearest_squares=pairs(apart, images, place, case.training, like),
        neighbour_squares=pairs(apart, case.training, like, case.training, next_like),
        **_predict(case, training, drawn, arrays.get(MIRRORED)),
    )


def _described(case: Case) -> dict[str, Images]:
    """What features are extracted of, by the name of the array that they go to."""
    images: dict[str, Images] = {TRAINING: case.training, DRAWN: case.candidates}
    if case.spec.label_agreement and case.spec.label_agreement.flip:
        images[MIRRORED] = closest.Rows(case.training, np.flatnonzero(case.labels >= 0))
    return images


def _network(case: Case, encoder: list[Artefact]) -> dict[str, Any]:
    """Which network gave the features."""
    source, width = case.source, case.source.width(case.training)
    known = {"name": case.spec.network, "features": width, "epoch": source.epoch}
    if isinstance(source, InceptionSource):
        return known | {"weights_sha256": source.sha256, "reference_weights": source.reference}
    weights = encoder[0].subjects[source.path.name]["digest"]["sha256"]
    return known | {"weights_sha256": weights}


def _moments(case: Case, drawn: np.ndarray) -> dict[int, Moments]:
    """Moments of the first k candidates of every anchor, by k."""
    found, k = {}, case.candidates.count
    for wanted in case.spec.candidates:
        place = np.flatnonzero(np.arange(len(drawn)) % k < wanted)
        rows = closest.Rows(drawn, place)
        found[wanted] = moments_of(rows, closest.block_of(rows))
    return found


def measure_bank(
    spec: QualitySpec, bank: Input, dataset: Input, encoder: Inputs, numbers: Output, arrays: Output
) -> Outcome:
    """Measure the quality of one bank.

    Args:
        spec: What is measured, and with which network.
        bank: Made by gather-bank.
        dataset: The prepared dataset that it was drawn for, at the same size.
        encoder: The run or imported encoder that the spec names; nothing with Inception.
        numbers: Every number for every k, as JSON.
        arrays: What they follow from, see clsp/evaluate/quality_numbers.py; `mean` and `covariance`
            of the features of `training` and of the candidates `k<k>`.

    Raises:
        ConfigError: If more anchors, candidates or labels are asked for than there are, or an
            artefact is not the one of the spec.
        DataError: If a file is corrupt, the bank is of other images, or a feature is not finite.
    """
    with decoded(open_case(spec, bank, dataset, encoder), arrays) as case, ExitStack() as stack:
        images = _described(case)
        shapes = {name: (len(each), case.source.width(each)) for name, each in images.items()}
        features = stack.enter_context(arrays_on_disk(arrays, shapes))
        for name, each in images.items():
            _describe(case, each, name, features[name])
        training = moments_of(features[TRAINING], closest.block_of(features[TRAINING]))
        candidates = _moments(case, features[DRAWN])
        found = _measure(case, features)
    results = [
        {
            "k": k,
            "images": {"candidates": moments.count, "training": training.count},
            "singular": moments.singular or training.singular,
            "numbers": numbers_of(spec, found, k, moments, training),
        }
        for k, moments in candidates.items()
    ]
    network = _network(case, encoder)
    document = {"schema_version": SCHEMA, "bank": spec.bank, "network": network, "quality": results}
    numbers.write_text(canonical_json(document) + "\n", encoding="utf-8")
    stored = {f"{part}.k{k}": getattr(m, part) for k, m in candidates.items() for part in PARTS}
    stored |= {f"{part}.{TRAINING}": getattr(training, part) for part in PARTS}
    write_arrays(arrays, {**found.arrays(), **stored})
    metrics = {
        f"quality/k{r['k']}/{name}": value for r in results for name, value in r["numbers"].items()
    }
    facts = {
        "network": network,
        "quality": [{key: r[key] for key in ("k", "images", "singular")} for r in results],
        # The probe alone reads them; neither the bank nor any encoder does.
        "labels_read_for_analysis": case.labels is not None,
        "label_conditioned": bool(bank.predicate["facts"].get("label_conditioned")),
        "torch_fidelity": version("torch-fidelity"),
    }
    counters = {"anchors": len(case.rows), "images": len(case.candidates)}
    return Outcome(metrics, counters | {"training_images": len(case.training)}, facts)
