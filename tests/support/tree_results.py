"""How the tiny tree's encoders are judged: features, predictions and records that agree with them.

Everything is counted in plain Python.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save
from tree_params import CLASSES, SIDE, TEST, TRAIN

from clsp.audit.relearn import relearn_linear, revote
from clsp.config.floors import Floor
from clsp.config.foreign import Imported
from clsp.config.grid import Run
from clsp.config.plan import Job, features_job, few_shot_job, fine_tune_job, probe_job, transfer_job
from clsp.runtime.canonical import canonical_json
from clsp.runtime.keys import numpy_stream
from clsp.runtime.manifest import Artefact

Judged = Run | Imported | Floor
Arrays = dict[str, np.ndarray]
ROWS = np.arange(TRAIN, TRAIN + TEST, dtype=np.int64)
WIDTH = 8  # of features


def stream(*parts: Any) -> np.random.Generator:
    """A generator that depends on nothing but its key."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def counts(guess: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """[correct, total] of each class; guesses (M,) or, pooled over draws, (D, M)."""
    hits = (guess == labels).reshape(-1, len(labels))
    return [
        [int(hits[:, labels == c].sum()), int((labels == c).sum()) * len(hits)]
        for c in range(CLASSES)
    ]


def of_logits(logits: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """[correct, total] of each class; of several per image, correct is a positive logit."""
    if labels.ndim == 1:
        return counts(logits.argmax(axis=1), labels)
    hits, total = ((logits > 0) & (labels > 0)).sum(axis=0), labels.sum(axis=0)
    return [[int(hit), int(all_of)] for hit, all_of in zip(hits, total, strict=True)]


def eleven_points(scores: list[float], shown: list[int]) -> float:
    """Average precision at eleven recalls; scores differ from one another."""
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    hits = [sum(shown[row] for row in order[: n + 1]) for n in range(len(order))]
    precision = [hit / (n + 1) for n, hit in enumerate(hits)]
    best = [
        max(p for p, hit in zip(precision, hits, strict=True) if 10 * hit >= k * sum(shown))
        for k in range(11)
    ]
    return sum(best) / 11


def value_of(per_class: list[list[int]], metric: str) -> float:
    """Percent."""
    if metric == "top1":
        return 100 * sum(c for c, _ in per_class) / sum(t for _, t in per_class)
    shares = [100 * c / t for c, t in per_class if t]
    return sum(shares) / len(shares)


def record_of(
    key: tuple[str, str, str],
    metric: str,
    per_class: list[list[int]],
    predictions: dict[str, str],
    epoch: int | None = 2,
    selected_on: str = "none",
    **selection: Any,
) -> dict[str, Any]:
    """A result record; the key is task, protocol and variant."""
    return {
        **dict(zip(("task", "protocol", "variant"), key, strict=True)),
        "metric": metric,
        "value": value_of(per_class, metric),
        "correct": sum(c for c, _ in per_class),
        "total": sum(t for _, t in per_class),
        "per_class": per_class,
        "split": "test",
        "epoch": epoch,
        "selected_on": selected_on,
        "selection": selection,
        "predictions": predictions,
    }


def document(slug: str, results: list[dict[str, Any]]) -> str:
    """A file of results."""
    return canonical_json({"schema_version": 1, "run": slug, "results": results}) + "\n"


def npz(base: Path, arrays: Arrays) -> bytes:
    """Bytes of an npz file."""
    path = base / "arrays.npz"
    np.savez(path, **arrays)
    content = path.read_bytes()
    path.unlink()
    return content


def shots_of(wanted: float | int, *key: int | str) -> np.ndarray:
    """Rows of the training images of a draw; labels go round, so that classes are evenly large."""
    shots, drawn = wanted if isinstance(wanted, int) else round(wanted * TRAIN / CLASSES), []
    for label in range(CLASSES):
        order = numpy_stream(*key, label).permutation(np.arange(label, TRAIN, CLASSES))
        drawn += order[:shots].tolist()
    return np.array(drawn)


class Judging:
    """Writes what judges encoders; the part of TreeBuilder that knows predictions."""

    base: Path

    def write(self, job: Job, folder: str, files: Any, inputs: Any, **more: Any) -> Artefact:
        """Write one artefact; TreeBuilder does."""
        raise NotImplementedError

    def metric(self, task: str) -> str:
        """How a dataset is judged; TreeBuilder knows."""
        raise NotImplementedError

    def labels(self, task: str) -> np.ndarray:
        """Test labels of a dataset; TreeBuilder knows."""
        raise NotImplementedError

    def features(
        self, judged: Judged, encoder: Artefact | None, datasets: list[Artefact]
    ) -> Artefact:
        """Random features of every dataset, a little apart where classes differ."""
        tensors = {
            f"{data.folder.name}/{split}": self._drawn(judged.slug, data, split, count)
            for data in datasets
            for split, count in (("train", TRAIN), ("test", TEST))
        }
        facts = {
            "epoch": self.epoch(judged),
            "source": judged.features.source,
            "features": WIDTH,
            "resolutions": {data.folder.name: SIDE for data in datasets},
        }
        inputs = [*([encoder] if encoder else []), *datasets]
        files = {"features.safetensors": save(tensors)}
        return self.write(
            features_job(judged), f"features/{judged.slug}", files, inputs, facts=facts
        )

    @staticmethod
    def _drawn(slug: str, data: Artefact, split: str, count: int) -> np.ndarray:
        noise = stream(slug, data.folder.name, split).normal(size=(count, WIDTH))
        labels = np.load(data.folder / "labels.npy")
        shown = labels if labels.ndim == 2 else np.eye(CLASSES)[labels]
        part = shown[:TRAIN] if split == "train" else shown[TRAIN:]
        return (noise + part @ np.eye(CLASSES, WIDTH)).astype(np.float32)

    def _learnt(self, judged: Judged, features: Artefact, dataset: Artefact) -> list[np.ndarray]:
        """Logits of the linear probe, and votes of the nearest neighbours, from stored features."""
        stored, task = load_file(features.folder / "features.safetensors"), dataset.folder.name
        labels = np.load(dataset.folder / "labels.npy")
        train, test = stored[f"{task}/train"], stored[f"{task}/test"]
        fit = (train, labels[:TRAIN], test, labels[TRAIN:])
        spec = judged.probe
        logits = relearn_linear(spec.linear, *fit, classes=CLASSES, seed=spec.seed)[1]
        guess = revote(spec.knn, *fit, CLASSES).guess
        return [logits, np.eye(CLASSES, dtype=np.float32)[guess]]

    @staticmethod
    def epoch(judged: Judged) -> int | None:
        """The last epoch of an encoder, as far as it is known; of a floor, none."""
        if isinstance(judged, Imported):
            return judged.spec.epochs
        return None if isinstance(judged, Floor) else 2

    def _logits(self, task: str, *parts: Any) -> np.ndarray:
        labels = self.labels(task)
        hot = labels if labels.ndim == 2 else np.eye(CLASSES)[labels]
        noise = stream(task, *parts).normal(size=(TEST, CLASSES))
        return (noise + 1.2 * hot).astype(np.float32)

    def _arrays(self, task: str, prefix: str, logits: np.ndarray) -> Arrays:
        return {
            f"{prefix}logits": logits,
            f"{prefix}labels": self.labels(task),
            f"{prefix}rows": ROWS,
        }

    def _by_logits(
        self, key: tuple[str, str, str], stored: Arrays, names: dict[str, str], **more: Any
    ) -> dict[str, Any]:
        logits, labels = stored[names["logits"]], stored[names["labels"]]
        record = record_of(key, self.metric(key[0]), of_logits(logits, labels), names, **more)
        if labels.ndim == 2:
            columns = zip(logits.T.tolist(), labels.T.tolist(), strict=True)
            points = [eleven_points(*column) for column in columns]
            record["value"] = 100 * sum(points) / len(points)
        return record

    def probe(self, run: Run | Imported, features: Artefact, dataset: Artefact) -> Artefact:
        """Linear probe and kNN, with logits that give the recorded numbers."""
        task = dataset.folder.name
        plain = {"logits": "logits", "labels": "labels", "rows": "rows"}
        linear, knn = (self._arrays(task, "", x) for x in self._learnt(run, features, dataset))
        linear["logits_best_rate"] = self._logits(task, "rate", run.slug)
        knn["logits_best_of_k"] = self._logits(task, "best", run.slug)
        of_linear, of_knn = {"file": "linear.npz", **plain}, {"file": "knn.npz", **plain}
        rated = {**of_linear, "logits": "logits_best_rate"}
        best = {**of_knn, "logits": "logits_best_of_k"}
        last = {"epoch": self.epoch(run)}
        fixed = run.probe.linear.learning_rate
        found = {"selected_on": "val", "learning_rate": 2.0}
        results = [
            self._by_logits((task, "linear", ""), linear, of_linear, **last, learning_rate=fixed),
            self._by_logits((task, "linear", "best_rate"), linear, rated, **last, **found),
            self._by_logits((task, "knn", ""), knn, of_knn, **last, k=3),
            self._by_logits((task, "knn", "best_of_k"), knn, best, **last, selected_on="test", k=1),
        ]
        files: dict[str, Any] = {
            "linear.json": document(run.slug, results[:2]),
            "knn.json": document(run.slug, results[2:]),
            "linear.npz": npz(self.base, linear),
            "knn.npz": npz(self.base, knn),
        }
        names = ("linear/top1", "linear_best_rate/top1", "knn/top1", "knn_best_of_k/top1")
        return self.write(
            probe_job(run),
            f"probes/{run.slug}",
            files,
            [features, dataset],
            metrics={name: r["value"] for name, r in zip(names, results, strict=True)},
            facts={"results": results},
        )

    def _judged(
        self,
        job: Job,
        kind: str,
        stored: Arrays,
        results: list[dict[str, Any]],
        inputs: list[Artefact],
    ) -> Artefact:
        slug = job.name
        variants = [r["variant"].replace("=", "_") for r in results]
        parts = [(kind, r["task"], v) for r, v in zip(results, variants, strict=True)]
        names = ["/".join(filter(None, part)) for part in parts]
        return self.write(
            job,
            f"{kind}/{slug}",
            {f"{kind}.json": document(slug, results), "predictions.npz": npz(self.base, stored)},
            inputs,
            metrics={name: r["value"] for name, r in zip(names, results, strict=True)},
            facts={"results": results},
        )

    def _whole(
        self, job: Job, kind: str, judged: Judged, source: Artefact, tasks: list[Artefact]
    ) -> Artefact:
        """One number per task from logits, chosen on validation."""
        stored, results = {}, []
        for task in (data.folder.name for data in tasks):
            stored |= self._arrays(task, f"{task}.", self._logits(task, kind, judged.slug))
            names = {"file": "predictions.npz"}
            names |= {key: f"{task}.{key}" for key in ("logits", "labels", "rows")}
            more = {"epoch": self.epoch(judged), "selected_on": "val", "log10_lambda": 0.0}
            results.append(self._by_logits((task, kind, ""), stored, names, **more))
        return self._judged(job, kind, stored, results, [source, *tasks])

    def transfer(self, judged: Judged, features: Artefact, tasks: list[Artefact]) -> Artefact:
        """Transfer to every task."""
        job = transfer_job(judged)
        assert job is not None
        return self._whole(job, "transfer", judged, features, tasks)

    def fine_tune(
        self, run: Run | Imported, encoder: Artefact, tasks: list[Artefact]
    ) -> Artefact | None:
        """Fine-tuning on every task, if asked for."""
        job = fine_tune_job(run)
        return self._whole(job, "fine_tune", run, encoder, tasks) if job else None

    def few_shot(
        self, judged: Judged, features: Artefact, tasks: list[Artefact]
    ) -> Artefact | None:
        """Curves with few labels on every task, from predicted classes, if asked for."""
        job = few_shot_job(judged)
        if job is None or judged.few_shot is None:
            return None
        spec, stored, results = judged.few_shot.few_shot, {}, []
        tasks = [data for data in tasks if data.folder.name in judged.few_shot.datasets]
        for task in (data.folder.name for data in tasks):
            stored |= {f"{task}.labels": self.labels(task), f"{task}.rows": ROWS}
            for variant in spec.points:
                names = {"file": "predictions.npz", "predicted": f"{task}.{variant}.predicted"}
                names |= {key: f"{task}.{key}" for key in ("labels", "rows")}
                guess = np.stack(
                    [
                        self._logits(task, judged.slug, variant, draw).argmax(axis=1)
                        for draw in range(spec.draws)
                    ]
                )
                stored[names["predicted"]] = guess
                key = (spec.seed, "few-shot", task, variant)
                draws = [shots_of(spec.points[variant], *key, n) for n in range(spec.draws)]
                stored[f"{task}.{variant}.drawn"] = np.stack(draws)
                results.append(
                    record_of(
                        (task, "few_shot", variant),
                        self.metric(task),
                        counts(guess, self.labels(task)),
                        names,
                        epoch=self.epoch(judged),
                        draws=spec.draws,
                    )
                )
        return self._judged(job, "few_shot", stored, results, [features, *tasks])
