"""Measured banks in the tiny tree, by plain loops over random features; and faults in them."""

import csv
import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from injecting import Tree, edit_arrays, edit_statement, fault
from tree_params import CANDIDATES, CLASSES, PARAMS, SIDE, TRAIN
from tree_results import npz, stream

from clsp.config.measured import measured_banks, quality_spec
from clsp.config.plan import Job, quality_job
from clsp.config.quality import QualitySpec
from clsp.config.schema import Params
from clsp.runtime.canonical import canonical_json
from clsp.runtime.manifest import Artefact

LOOKED = "digits.tiny.simclr.none.s0"
WIDTH = 5  # of features
FIGURES = ("quality_interpolation", "quality_candidates", "quality_steps", "interpolation_grid")
MEASURED: dict[str, Any] = {  # changes that measure the bank, and others that differ in w or steps
    "quality": {
        "encoder": LOOKED,
        "anchors": 8,
        "candidates": [1, CANDIDATES],
        "near_copy": 0.5,
        "label_agreement": True,
        "seed": 0,
        "vary": {"interpolation_weight": [0.1, 0.5], "steps": [1, 2]},
    },
    "runs": {"main": {**PARAMS["runs"]["main"], "seed": [0, 1]}},
    "tables": [*PARAMS["tables"], "quality"],
    "figures": ["curves", *FIGURES],
}
Numbers = dict[str, float]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def _squares(a: np.ndarray, b: np.ndarray) -> int:
    return int(((a.astype(int) - b.astype(int)) ** 2).sum())


def _mean(values: Any) -> float:
    found = [float(value) for value in values]
    return math.fsum(found) / len(found)


class Case:
    """A bank with features of its images."""

    def __init__(self, spec: QualitySpec, bank: np.ndarray, training: np.ndarray) -> None:
        count = len(training)
        self.spec, self.bank, self.training = spec, bank, training
        self.rows = [i * count // spec.anchors for i in range(spec.anchors)]
        self.others = [(row + 5) % count for row in self.rows]
        self.seen = stream("seen", spec.dataset).normal(size=(count, WIDTH))
        self.drawn = stream("drawn", spec.bank).normal(size=(spec.anchors, CANDIDATES, WIDTH))
        self.labels = np.arange(count) % CLASSES
        self.guess = stream("guess", spec.bank).integers(0, CLASSES, (spec.anchors, CANDIDATES))
        self.known = stream("known", spec.bank).integers(0, CLASSES, spec.anchors)

    def single(self, measure: Callable[[int, int, int], Any]) -> np.ndarray:
        """A value for every anchor and candidate; the function gets place, row and candidate."""
        pairs = enumerate(self.rows)
        return np.array([[measure(p, row, k) for k in range(CANDIDATES)] for p, row in pairs])

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that the stage stores but moments."""
        bank, images, drawn, seen = self.bank, self.training, self.drawn, self.seen
        every = range(len(images))
        near = self.single(lambda p, r, k: max(every, key=lambda n: _cosine(drawn[p, k], seen[n])))
        like = self.single(
            lambda p, r, k: min(every, key=lambda n: (_squares(bank[r, k], images[n]), n))
        )

        def beside(n: int) -> list[int]:
            return [m for m in every if m != n]

        return {
            "rows": np.array(self.rows),
            "others": np.array(self.others),
            "pixels": np.int64(SIDE * SIDE * 3),
            "own_cosine": self.single(lambda p, r, k: _cosine(drawn[p, k], seen[r])),
            "random_cosine": self.single(
                lambda p, r, k: _cosine(drawn[p, k], seen[self.others[p]])
            ),
            "own_squares": self.single(lambda p, r, k: _squares(bank[r, k], images[r])),
            "random_squares": self.single(
                lambda p, r, k: _squares(bank[r, k], images[self.others[p]])
            ),
            "pair_cosine": np.array([[_cosine(d[0], d[1])] for d in drawn]),
            "pair_squares": np.array([[_squares(bank[r, 0], bank[r, 1])] for r in self.rows]),
            "nearest_feature": near,
            "nearest_cosine": self.single(lambda p, r, k: _cosine(drawn[p, k], seen[near[p, k]])),
            "neighbour_cosine": self.single(
                lambda p, r, k: max(_cosine(seen[near[p, k]], seen[m]) for m in beside(near[p, k]))
            ),
            "nearest_pixel": like,
            "nearest_squares": self.single(
                lambda p, r, k: _squares(bank[r, k], images[like[p, k]])
            ),
            "neighbour_squares": self.single(
                lambda p, r, k: min(
                    _squares(images[like[p, k]], images[m]) for m in beside(like[p, k])
                )
            ),
            "labels": self.labels[self.rows],
            "predicted": self.guess,
            "anchor_predicted": self.known,
        }

    def moments(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the first k candidates, of the training images for k = 0."""
        features = self.drawn[:, :k].reshape(-1, WIDTH) if k else self.seen
        return features.mean(axis=0), np.cov(features, rowvar=False)

    def distance(self, k: int) -> float:
        """By the eigenvalues of the product of the covariances."""
        (mean, one), (other, two) = self.moments(k), self.moments(0)
        cross = np.sqrt(np.linalg.eigvals(one @ two).astype(complex)).real.sum()
        return float(((mean - other) ** 2).sum() + np.trace(one) + np.trace(two) - 2 * cross)

    def numbers(self, arrays: dict[str, np.ndarray], k: int) -> Numbers:
        """Every number of the first k candidates."""
        a = {n: v[:, :k].ravel() for n, v in arrays.items() if v.ndim == 2 and "pair" not in n}
        rows = np.repeat(self.rows, k)
        right, scale = np.repeat(arrays["labels"], k), float(SIDE * SIDE * 3 * 255**2)
        found = {
            "frechet_distance": self.distance(k),
            "own_cosine": _mean(a["own_cosine"]),
            "random_cosine": _mean(a["random_cosine"]),
            "nearer_cosine": 100 * _mean(a["own_cosine"] > a["random_cosine"]),
            "own_mse": _mean(a["own_squares"]) / scale,
            "random_mse": _mean(a["random_squares"]) / scale,
            "nearer_mse": 100 * _mean(a["own_squares"] < a["random_squares"]),
            "label_agreement": 100 * _mean(a["predicted"] == right),
            "anchor_accuracy": 100 * _mean(arrays["anchor_predicted"] == arrays["labels"]),
        }
        if k > 1:
            found["diversity_cosine"] = _mean(1 - arrays["pair_cosine"].ravel())
            found["diversity_mse"] = _mean(arrays["pair_squares"].ravel()) / scale
        for space, near, own in (
            ("feature", 2 - 2 * a["nearest_cosine"], 2 - 2 * a["neighbour_cosine"]),
            ("pixel", a["nearest_squares"], a["neighbour_squares"]),
        ):
            ratios = sorted(math.sqrt(x / y) for x, y in zip(near, own, strict=True))
            middle = ratios[(len(ratios) - 1) // 2], ratios[len(ratios) // 2]
            found[f"distance_ratio_{space}"] = sum(middle) / 2
            found[f"near_copies_{space}"] = sum(ratio < self.spec.near_copy for ratio in ratios)
            found[f"copies_of_others_{space}"] = sum(
                bool(math.sqrt(x / y) < self.spec.near_copy and row != mine)
                for x, y, row, mine in zip(near, own, a[f"nearest_{space}"], rows, strict=True)
            )
            found[f"nearest_own_{space}"] = 100 * _mean(a[f"nearest_{space}"] == rows)
        return found


class Measuring:
    """Writes what measures banks; the part of TreeBuilder that knows quality."""

    params: Params
    base: Any
    write: Callable[..., Artefact]  # one artefact; TreeBuilder's

    def measure(
        self, banks: dict[str, Artefact], encoders: dict[str, Artefact], data: dict[str, Artefact]
    ) -> None:
        """Every bank that is measured."""
        for name in measured_banks(self.params):
            spec, job = quality_spec(self.params, name), quality_job(self.params, name)
            dataset, encoder = data[spec.dataset], encoders[str(spec.encoder)]
            bank = np.load(banks[name].folder / "images.npy")
            case = Case(spec, bank, np.load(dataset.folder / "images.npy")[:TRAIN])
            self._measured(job, case, [banks[name], dataset, encoder])

    def _measured(self, job: Job, case: Case, inputs: list[Artefact]) -> None:
        arrays, results = case.arrays(), []
        for k in (0, *case.spec.candidates):
            of = f"k{k}" if k else "training"
            arrays[f"mean.{of}"], arrays[f"covariance.{of}"] = case.moments(k)
        for k in case.spec.candidates:
            counts = {"candidates": case.spec.anchors * k, "training": TRAIN}
            numbers = case.numbers(arrays, k)
            few = min(counts.values()) <= WIDTH
            results.append({"k": k, "images": counts, "singular": few, "numbers": numbers})
        weights = inputs[-1].subjects["encoder.safetensors"]["digest"]["sha256"]
        network = {"name": LOOKED, "features": WIDTH, "epoch": 2, "weights_sha256": weights}
        document = {"schema_version": 1, "bank": job.name, "network": network, "quality": results}
        self.write(
            job,
            f"quality/{job.name}",
            {
                "quality.json": canonical_json(document) + "\n",
                "quality.npz": npz(self.base, arrays),
            },
            inputs,
            metrics={f"quality/k{r['k']}/{n}": v for r in results for n, v in r["numbers"].items()},
            counters={"training_images": TRAIN},
            facts={
                "network": network,
                "quality": [{key: r[key] for key in ("k", "images", "singular")} for r in results],
                "labels_read_for_analysis": True,
                "label_conditioned": False,
            },
        )


def _quality(tree: Tree, name: str, bank: str = "digits.mix") -> Any:
    return tree.results / "quality" / bank / name


def _forge(tree: Tree, metric: str, value: float) -> None:
    """Write another number into file and manifest alike."""
    path = _quality(tree, "quality.json")
    document = json.loads(path.read_text())
    document["quality"][-1]["numbers"][metric] = value
    path.write_text(canonical_json(document))
    name = f"quality/k{CANDIDATES}/{metric}"
    edit_statement(_quality(tree, "manifest.json"), lambda p: p["metrics"].update({name: value}))


@fault("A20", "A22", "A45", within="measured")
def distance_of_bank_forged(tree: Tree) -> None:
    """Smaller than means and covariances give, everywhere but in the report."""
    _forge(tree, "frechet_distance", 0.01)


@fault("A20", "A22", "A45", within="measured")
def agreement_of_bank_forged(tree: Tree) -> None:
    _forge(tree, "label_agreement", 99.0)


def _edit(tree: Tree, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    edit_arrays(_quality(tree, "quality.npz"), change)
    edit_statement(_quality(tree, "manifest.json"), lambda _: None)


@fault("A22", "A45", within="measured")
def near_copy_hidden(tree: Tree) -> None:
    """Another nearest image, farther away, whose distance is made to agree."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["nearest_pixel"][0, 0] = (arrays["nearest_pixel"][0, 0] + 1) % TRAIN

    _edit(tree, change)


@fault("A22", "A45", within="measured")
def likeness_of_one_candidate_edited(tree: Tree) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["own_squares"][1, 1] -= 1

    _edit(tree, change)


@fault("A22", "A45", within="measured")
def neighbour_moved_away(tree: Tree) -> None:
    """Own cosines above those of the nearest image."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["nearest_cosine"][:] = arrays["random_cosine"] - 0.1

    _edit(tree, change)


@fault("A22", "A45", within="measured")
def other_training_features(tree: Tree) -> None:
    """Means and covariances that bring the distance near to zero, in one bank alone."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        for part in ("mean", "covariance"):
            arrays[f"{part}.training"] = arrays[f"{part}.k{CANDIDATES}"]

    _edit(tree, change)


@fault("A22", "A45", within="measured")
def labels_of_anchors_edited(tree: Tree) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["labels"][:] = arrays["predicted"][:, 0]

    _edit(tree, change)


@fault("A22", "A45", within="measured")
def array_of_bank_missing(tree: Tree) -> None:
    _edit(tree, lambda arrays: arrays.pop("own_cosine"))


@fault("A22", "A45", within="measured")
def other_network_claimed(tree: Tree) -> None:
    edit_statement(
        _quality(tree, "manifest.json"),
        lambda p: p["facts"]["network"].update(name="inception-v3"),
    )


@fault("A22", "A45", within="measured")
def labels_read_in_silence(tree: Tree) -> None:
    edit_statement(
        _quality(tree, "manifest.json"), lambda p: p["facts"].update(labels_read_for_analysis=False)
    )


@fault("A02", "A22", "A45", within="measured")
def point_of_quality_edited(tree: Tree) -> None:
    path = tree.reports / "figures/quality_interpolation.csv"
    lines = path.read_text().split("\n")
    fields = lines[1].split(",")
    lines[1] = ",".join([*fields[:8], "0.5", *fields[9:]])
    path.write_text("\n".join(lines))


@fault("A02", "A22", "A45", within="measured")
def cell_of_quality_edited(tree: Tree) -> None:
    path = tree.reports / "tables/quality.csv"
    lines = path.read_text().split("\n")
    place = lines[0].split(",").index("mean")
    rows = list(csv.reader(io.StringIO(path.read_text())))
    rows[1][place] = "0.5"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    path.write_text(text.getvalue())


@fault("A01", "A22", within="measured")
def bank_not_measured(tree: Tree) -> None:
    for path in _quality(tree, "", "digits.mix.steps1").iterdir():
        path.unlink()


@fault("A02", "A29", "A45", within="measured")
def bit_flipped_in_quality(tree: Tree) -> None:
    path = _quality(tree, "quality.npz")
    path.write_bytes(path.read_bytes()[:-40])
