"""Stage fine-tune-encoder: all weights of one encoder, tuned to many downstream datasets.

The second transfer protocol: learning rate and weight decay are chosen on validation images, then
the encoder is tuned anew on training and validation images with the chosen pair, and the test
images are looked at once. Images enter at the size of their dataset.
"""

import io
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsp.config.evaluation import FineTuneJobSpec, FineTuneSpec
from clsp.data.encoded import EncodedImages
from clsp.data.prepared import Images, open_prepared
from clsp.data.stores import open_store
from clsp.evaluate.labelled import Task, check_given, open_task
from clsp.evaluate.metrics import Judged, make_result, score, write_arrays, write_results
from clsp.evaluate.splits import validation_of
from clsp.evaluate.tuning import Material, Pair, predict, tune
from clsp.models.features import FrozenEncoder, open_frozen
from clsp.runtime.canonical import canonical_json, read_json, sha256_json
from clsp.runtime.device import resolve
from clsp.runtime.errors import DataError, DivergedError
from clsp.runtime.files import write_atomic
from clsp.runtime.manifest import Artefact
from clsp.runtime.progress import Progress
from clsp.runtime.stage import Input, Inputs, Outcome, Output, Scratch


@dataclass(frozen=True)
class Case:
    """One dataset that an encoder is tuned to.

    Attributes:
        task: The dataset.
        images: All of its images.
        rows: Labelled training and validation images among them, int64 (N,).
        labels: Their labels, (N,) or (N, classes).
        validates: Which of them validate, bool (N,).
        rule: How those were chosen.
    """

    task: Task
    images: Images
    rows: np.ndarray
    labels: np.ndarray
    validates: np.ndarray
    rule: dict[str, Any]


class Kept:
    """What an interrupted attempt has finished: one file per pair and dataset."""

    def __init__(self, scratch: Path, spec: FineTuneJobSpec, inputs: list[Artefact]) -> None:
        """Results of another spec or of other inputs lie in another folder."""
        subjects = [artefact.statement["subject"] for artefact in inputs]
        self.folder = scratch / sha256_json([spec.canonical(), subjects])[:32]

    def record(self, name: str) -> dict[str, Any] | None:
        """A record that was kept, or None.

        Raises:
            DataError: If the file is damaged.
        """
        path = self.folder / f"{name}.json"
        return read_json(path) if path.exists() else None

    def keep(self, name: str, record: dict[str, Any]) -> None:
        """Keep a record, whole or not at all."""
        write_atomic(self.folder / f"{name}.json", canonical_json(record))

    def logits(self, name: str) -> np.ndarray:
        """Logits that were kept.

        Raises:
            DataError: If the file is missing or damaged.
        """
        path = self.folder / f"{name}.npy"
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: not a readable array ({error}); delete it") from error

    def keep_logits(self, name: str, logits: np.ndarray) -> None:
        """Keep logits; the record that says so comes after them."""
        stream = io.BytesIO()
        np.save(stream, logits, allow_pickle=False)
        write_atomic(self.folder / f"{name}.npy", stream.getvalue())


@dataclass(frozen=True)
class Bench:
    """What all datasets share."""

    spec: FineTuneSpec
    frozen: FrozenEncoder
    kept: Kept

    def material(self, case: Case) -> Material:
        """The images of a dataset, ready to train on: pixels on the device, or image files."""
        device, places = self.frozen.device, case.rows
        if isinstance(case.images, EncodedImages):
            store = open_store(case.images, device)
        else:
            store, places = open_store(case.images[places], device), np.arange(len(places))
        labels = torch.from_numpy(np.array(case.labels)).to(device)
        labels = labels.float() if labels.ndim == 2 else labels
        return Material(
            case.task.name,
            store,
            torch.from_numpy(places).to(device),
            labels,
            case.task.classes,
            self.frozen.statistics,
            device,
        )


def _open_case(artefact: Artefact, spec: FineTuneSpec) -> Case:
    task = open_task(artefact)
    rows = np.concatenate([task.train.rows, task.val.rows])
    labels = np.concatenate([task.train.labels, task.val.labels])
    return Case(task, open_prepared(artefact).images, rows, labels, *validation_of(task, spec))


def _tuned_logits(
    bench: Bench,
    case: Case,
    material: Material,
    pair: Pair,
    trained_on: np.ndarray,
    rows: np.ndarray,
    progress: Progress,
) -> np.ndarray | None:
    """Logits of some rows after tuning on part of the material, or None if it diverged."""
    network = tune(bench.spec, bench.frozen.encoder, material, trained_on, pair, progress)
    if network is None:
        return None
    logits = predict(network, case.images, rows, material)
    return logits if np.isfinite(logits).all() else None


def _try_pair(
    bench: Bench, case: Case, material: Material, pair: Pair, progress: Progress
) -> dict[str, Any]:
    """The record of one pair: its value on validation, in percent, or None where it diverged."""
    train, val = np.flatnonzero(~case.validates), np.flatnonzero(case.validates)
    logits = _tuned_logits(bench, case, material, pair, train, case.rows[val], progress)
    value = None if logits is None else score(logits, case.labels[val], case.task.metric)
    return {
        "learning_rate": pair.learning_rate,
        "weight_decay": pair.weight_decay,
        "validation_value": value,
        "diverged": value is None,
    }


def _search(
    bench: Bench, case: Case, material: Material, progress: Progress
) -> list[dict[str, Any]]:
    """A record of every pair, in the order of the grid; finished ones are not tried again."""
    spec, records = bench.spec, []
    for number, pair in enumerate(product(spec.learning_rates, spec.weight_decays)):
        name = f"{case.task.name}.{number}"
        record = bench.kept.record(name)
        if record is None:
            record = _try_pair(bench, case, material, Pair(*pair), progress)
            bench.kept.keep(name, record)
        else:
            progress.step(spec.epochs)
        records.append(record)
    return records


def _refit(
    bench: Bench, case: Case, material: Material, tried: list[dict[str, Any]], progress: Progress
) -> tuple[np.ndarray, dict[str, Any]]:
    """Test logits after tuning on all images, and what was selected.

    The best pair on validation is used, of equal ones the first. If it diverges on the larger set,
    the next best one is.

    Raises:
        DivergedError: If none is left.
    """
    good = [record for record in tried if not record["diverged"]]
    everything, test, broken = np.arange(len(case.rows)), case.task.test.rows, []
    for best in sorted(good, key=lambda record: -record["validation_value"]):
        pair = Pair(best["learning_rate"], best["weight_decay"])
        logits = _tuned_logits(bench, case, material, pair, everything, test, progress)
        if logits is not None:
            selection = {key: value for key, value in best.items() if key != "diverged"}
            selection |= {
                "validation": case.rule,
                "resolution": case.images.shape[1],
                "diverged_in_grid": len(tried) - len(good),
                "diverged_in_refit": broken,
            }
            return logits, selection
        broken.append([pair.learning_rate, pair.weight_decay])
    raise DivergedError(
        f"fine-tuning of {bench.frozen.run} on {case.task.name} diverged with every pair of "
        "learning rate and weight decay; lower evaluation.transfer.fine_tune.learning_rates"
    )


def _tune_to(bench: Bench, case: Case) -> tuple[np.ndarray, dict[str, Any], list[dict[str, Any]]]:
    """Test logits for one dataset, what was selected, and a record of every pair."""
    spec, name = bench.spec, f"{case.task.name}.final"
    done = bench.kept.record(name)
    if done is not None:
        return bench.kept.logits(name), done["selection"], done["tried"]
    material = bench.material(case)
    pairs = len(spec.learning_rates) * len(spec.weight_decays)
    label = f"fine-tune {bench.frozen.run} {case.task.name}"
    with Progress(label, (pairs + 1) * spec.epochs, "epoch") as progress:
        tried = _search(bench, case, material, progress)
        logits, selection = _refit(bench, case, material, tried, progress)
    bench.kept.keep_logits(name, logits)
    bench.kept.keep(name, {"selection": selection, "tried": tried})
    return logits, selection, tried


def fine_tune_encoder(
    spec: FineTuneJobSpec,
    encoder: Input,
    datasets: Inputs,
    results: Output,
    predictions: Output,
    scratch: Scratch,
) -> Outcome:
    """Fine-tune an encoder to downstream datasets, one test number each.

    Args:
        spec: Datasets and how the encoder is tuned.
        encoder: The pretraining run that the spec names.
        datasets: Prepared datasets, in the order of the spec.
        results: One record per dataset, JSON.
        predictions: Test logits, labels and rows, and rows of the validation images, npz with keys
            "<dataset>.logits" and so on.
        scratch: Keeps what is finished while the job is interrupted.

    Raises:
        ConfigError: If run or datasets are not those of the spec.
        DataError: If a file is corrupt, a split is empty or an image is unlabelled.
        DivergedError: If every pair diverges on some dataset.
    """
    check_given(datasets, spec.datasets)
    frozen = open_frozen(encoder, spec.run, resolve())
    bench = Bench(spec.fine_tune, frozen, Kept(scratch, spec, [encoder, *datasets]))
    cases = [_open_case(artefact, spec.fine_tune) for artefact in datasets]  # before any work
    found, arrays, fits = [], {}, {}
    for case in cases:
        task = case.task
        logits, selection, fits[task.name] = _tune_to(bench, case)
        names = {key: f"{task.name}.{key}" for key in ("logits", "labels", "rows")}
        stored = logits, task.test.labels, task.rows()
        arrays |= dict(zip(names.values(), stored, strict=True))
        arrays[f"{task.name}.validation_rows"] = case.rows[case.validates]
        where = {"file": predictions.name, **names}
        judged = Judged(task.name, task.metric, frozen.epoch, logits, task.test.labels, where)
        found.append(make_result(judged, "fine_tune", "val", selection))
    write_results(results, spec.run, found)
    write_arrays(predictions, arrays)
    metrics = {f"fine_tune/{r['task']}": r["value"] for r in found}
    counters = {
        "fits": sum(len(tried) for tried in fits.values()) + len(cases),
        "test_images": sum(len(case.task.test) for case in cases),
    }
    return Outcome(metrics, counters, {"results": found, "fits": fits})
