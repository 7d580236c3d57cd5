"""Stage probe-encoder: linear probe and weighted kNN of one encoder on its own dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsp.config.evaluation import KnnSpec, ProbeSpec
from clsp.evaluate import linear as probe
from clsp.evaluate.cache import Features, open_features
from clsp.evaluate.knn import neighbours, votes
from clsp.evaluate.labelled import Task, open_task
from clsp.evaluate.metrics import Judged, count_correct, make_result, write_arrays, write_results
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError
from clsp.runtime.stage import Input, Outcome, Output


@dataclass(frozen=True)
class Case:
    """A dataset and the features of an encoder on it, which both protocols share."""

    task: Task
    epoch: int | None  # the last one of the encoder's pretraining
    device: torch.device
    train: np.ndarray  # float32 (N, F), or (2N, F) with the mirror images second
    test: np.ndarray  # float32 (M, F)

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
    train = features.of(task, "train")
    if spec.linear.flip:
        train = np.concatenate([train, features.of(task, "train", mirrored=True)])
    return Case(task, features.epoch, resolve(), train, features.of(task, "test"))


def _probe_linear(spec: ProbeSpec, case: Case, file: Path) -> list[dict[str, Any]]:
    """Train and judge the linear probe, and store its logits in `file`."""
    weight, bias = probe.train_linear(
        spec.linear,
        case.train,
        case.task.train.labels,
        case.task.classes,
        seed=spec.seed,
        device=case.device,
        label=f"linear {spec.run}",
    )
    arrays = case.arrays(probe.linear_logits(case.test, weight, bias))
    write_arrays(file, arrays)
    fixed = {"probe_epoch": spec.linear.epochs, "learning_rate": spec.linear.learning_rate}
    return [make_result(case.judged(file, arrays, "logits"), "linear", "none", fixed)]


def _probe_knn(
    spec: KnnSpec, case: Case, file: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Judge kNN for every k in one pass, and store votes of the fixed and of the best k."""
    count = len(case.task.train)
    tried = sorted({k for k in spec.best_of if k <= count})
    every = sorted({spec.k, *tried})
    cosines, rows = neighbours(case.train[:count], case.test, every[-1], case.device)
    voters = case.task.train.labels[rows]  # (M, largest k)
    by_k = {k: votes(cosines, voters, case.task.classes, k, spec.temperature) for k in every}
    arrays = case.arrays(by_k[spec.k])
    judged = case.judged(file, arrays, "logits")
    fixed = {"k": spec.k, "temperature": spec.temperature}
    results = [make_result(judged, "knn", "none", fixed)]
    correct = {k: sum(c for c, _ in count_correct(by_k[k], judged.labels)) for k in every}
    if tried:
        best = max(tried, key=lambda k: (correct[k], -k))  # of equal ones the smallest k
        arrays["logits_best_of_k"] = by_k[best]
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
            left alone, since nothing is selected.
        linear: Results of the linear probe, JSON.
        knn: Results of kNN, JSON: fixed k, and best of several k where the spec lists some.
        linear_logits: Test logits of the linear probe, npz.
        knn_logits: Test votes of kNN, npz.

    Raises:
        ConfigError: If the parts do not belong together, or k exceeds the training images.
        DataError: If a file is corrupt or no image has a label.
    """
    cached, task = open_features(features, spec.run), open_task(dataset)
    _check(spec, cached, task)
    case = _open_case(spec, cached, task)
    by_linear = _probe_linear(spec, case, linear_logits)
    by_knn, facts = _probe_knn(spec.knn, case, knn_logits)
    write_results(linear, spec.run, by_linear)
    write_results(knn, spec.run, by_knn)
    results = by_linear + by_knn
    counters = {"train_images": len(task.train), "test_images": len(task.test)}
    return Outcome(_named(results), counters, {"results": results, "knn": facts})
