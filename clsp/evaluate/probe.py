"""Stage probe-encoder: linear probe and weighted kNN of one encoder on its own dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsp.config.evaluation import KnnSpec, ProbeSpec
from clsp.evaluate import linear as probe
from clsp.evaluate.cache import Features, open_features
from clsp.evaluate.knn import votes
from clsp.evaluate.labelled import Task, open_task
from clsp.evaluate.metrics import Judged, count_correct, make_result, write_arrays, write_results
from clsp.evaluate.rates import choose_rate
from clsp.models.nearest import neighbours
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError
from clsp.runtime.stage import Input, Outcome, Output


@dataclass(frozen=True)
class Case:
    """A dataset and the features of an encoder on it, which both protocols share."""

    task: Task
    epoch: int | None  # the last one of the encoder's pretraining
    device: torch.device
    train: np.ndarray  # float32 (N, F), mapped
    mirrored: Sequence[np.ndarray]  # the same of the mirror images, where the probe flips
    test: np.ndarray  # float32 (M, F), mapped

    def arrays(self, logits: np.ndarray) -> dict[str, np.ndarray]:
        """The predictions of one protocol as they are stored."""
        return {"logits": logits, "labels": self.task.test.labels, "rows": self.task.rows()}

    def judged(self, file: Path, arrays: dict[str, np.ndarray], logits: str) -> Judged:
        """The stored predictions whose logits have the given name."""
        names = {"file": file.name, "logits": logits, "labels": "labels", "rows": "rows"}
        task = self.task
        return Judged(task.name, task.metric, self.epoch, arrays[logits], arrays["labels"], names)


def _check(spec: ProbeSpec, features: Features, task: Task) -> None:
    if task.name != features.own:
        raise ConfigError(
            f'--dataset: run "{spec.run}" is judged on "{features.own}", '
            f'but the dataset given is "{task.name}"'
        )
    if task.multilabel:
        raise ConfigError(
            f'--dataset: images of "{task.name}" show several classes; the linear probe and kNN '
            "are defined for one"
        )
    if spec.knn.k > len(task.train):
        raise ConfigError(
            f"evaluation.knn.k: {spec.knn.k} neighbours are asked for, but the training split "
            f'of "{task.name}" has {len(task.train)} labelled images'
        )


def _open_case(spec: ProbeSpec, features: Features, task: Task) -> Case:
    train, test = (features.of(task, split) for split in ("train", "test"))
    mirrored = [features.of(task, "train", mirrored=True)] if spec.linear.flip else []
    return Case(task, features.epoch, resolve(), train, mirrored, test)


def _probe_linear(
    spec: ProbeSpec, case: Case, file: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train and judge the linear probe, at its own rate and at the best of a grid.

    Stores the logits in `file`.

    Returns:
        One result or two; and, of a grid, what each of its rates came to.
    """
    linear, task, label = spec.linear, case.task, f"linear {spec.run}"
    parts = [case.train, *case.mirrored]
    samples = probe.load_samples(parts, task.train.labels, task.classes, case.device)
    layer = probe.train_linear(linear, samples, seed=spec.seed, label=label)
    arrays = case.arrays(probe.linear_logits(case.test, *layer))
    fixed = {"probe_epoch": linear.epochs, "learning_rate": linear.learning_rate}
    results = [make_result(case.judged(file, arrays, "logits"), "linear", "none", fixed)]
    facts: dict[str, Any] = {}
    if linear.grid is not None:
        best = choose_rate(linear, linear.grid, samples, task, seed=spec.seed, label=label)
        name = "logits_best_rate"
        arrays[name] = probe.linear_logits(case.test, best.weight, best.bias)
        arrays["validation_rows"] = best.rows
        judged = case.judged(file, arrays, name)
        results.append(make_result(judged, "linear", "val", best.selection, variant="best_rate"))
        facts = {"linear": best.facts}
    write_arrays(file, arrays)
    return results, facts


def _probe_knn(
    spec: KnnSpec, case: Case, file: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Judge kNN for every k in one pass, and store votes of the fixed and of the best k."""
    task = case.task
    tried = sorted({k for k in spec.best_of if k <= len(task.train)})
    every = sorted({spec.k, *tried})
    cosines, rows = neighbours(case.train, case.test, every[-1], case.device)
    voters = task.train.labels[rows]  # (M, largest k)
    correct: dict[int, int] = {}
    kept: dict[int, np.ndarray] = {}  # votes of the fixed k and of the best so far
    for k in every:
        kept[k] = votes(cosines, voters, task.classes, k, spec.temperature)
        correct[k] = sum(c for c, _ in count_correct(kept[k], task.test.labels))
        best = max((t for t in tried if t <= k), key=lambda t: (correct[t], -t), default=None)
        kept = {t: kept[t] for t in kept if t in (spec.k, best)}  # of equal ones the smallest k
    arrays = case.arrays(kept[spec.k])
    fixed = {"k": spec.k, "temperature": spec.temperature}
    results = [make_result(case.judged(file, arrays, "logits"), "knn", "none", fixed)]
    if tried:
        arrays["logits_best_of_k"] = kept[best]
        judged = case.judged(file, arrays, "logits_best_of_k")
        chosen = {"k": best, "temperature": spec.temperature, "among": tried}
        results.append(make_result(judged, "knn", "test", chosen, variant="best_of_k"))
    write_arrays(file, arrays)
    skipped = sorted(set(spec.best_of) - set(tried))  # more neighbours than training images
    return results, {"correct_by_k": {str(k): n for k, n in correct.items()}, "skipped_k": skipped}


def _named(results: list[dict[str, Any]]) -> dict[str, float]:
    """Values by the names that MLflow shows, such as "knn_best_of_k/top1"."""
    parts = [filter(None, (r["protocol"], r["variant"])) for r in results]
    return {f"{'_'.join(p)}/{r['metric']}": r["value"] for p, r in zip(parts, results, strict=True)}


def probe_encoder(
    spec: ProbeSpec,
    features: Input,
    dataset: Input,
    linear: Output,
    knn: Output,
    linear_logits: Output,
    knn_logits: Output,
) -> Outcome:
    """Judge a frozen encoder on the dataset it was pretrained on.

    Args:
        spec: Linear probe, kNN and the seed of the probe.
        features: Features of the run that the spec names.
        dataset: Its dataset. The probe learns from "train" and is scored on "test"; "val" is
            left alone. Where the spec has a grid of rates, a part of "train" chooses among them.
        linear: Results of the linear probe, JSON: fixed rate, and the best rate of a grid.
        knn: Results of kNN, JSON: fixed k, and best of several k where the spec lists some.
        linear_logits: Test logits of the linear probe, npz; of a grid also those of its best rate
            (`logits_best_rate`), and the rows of the images that chose it (`validation_rows`).
        knn_logits: Test votes of kNN, npz.

    Raises:
        ConfigError: If the parts do not belong together, k exceeds the training images, or the
            linear probe diverges, at its own rate or at all of the grid.
        DataError: If a file is corrupt or no image has a label.
    """
    cached, task = open_features(features, spec.run), open_task(dataset)
    _check(spec, cached, task)
    case = _open_case(spec, cached, task)
    by_linear, tried = _probe_linear(spec, case, linear_logits)
    by_knn, facts = _probe_knn(spec.knn, case, knn_logits)
    write_results(linear, spec.run, by_linear)
    write_results(knn, spec.run, by_knn)
    results = by_linear + by_knn
    counters = {"train_images": len(task.train), "test_images": len(task.test)}
    return Outcome(_named(results), counters, {"results": results, "knn": facts, **tried})
