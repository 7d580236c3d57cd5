"""Noise of the finite test set: by drawing images anew, and by its formula."""

import json
from math import hypot

import numpy as np
import pytest
from auditing import audit
from faults import Tree

from clsp.audit import inference
from clsp.audit.images import paired_bootstrap
from clsp.report.statistics import binomial_error


def drawn(share: float, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(count) < share


def test_against_nothing_it_is_the_binomial_error() -> None:
    right = drawn(0.9445, 10_000, 0)[None]
    found = paired_bootstrap(right, np.zeros_like(right))
    known = binomial_error(100 * right.mean(), 10_000)
    assert known == pytest.approx(0.23, abs=0.01)  # audit.md 3.2
    assert found["error"] == pytest.approx(known, rel=0.05)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * known, rel=0.05)


def test_it_is_what_drawing_images_one_by_one_gives() -> None:
    left = np.array([drawn(0.7, 300, seed) for seed in (1, 2, 3)])
    right = np.array([drawn(0.6, 300, seed) for seed in (4, 5)])
    gaps = 100 * (left.mean(axis=0) - right.mean(axis=0))
    rows = np.random.default_rng(9).integers(0, 300, (4000, 300))
    found = paired_bootstrap(left, right)
    assert found["error"] == pytest.approx(gaps[rows].mean(axis=1).std(), rel=0.06)
    assert found["low"] < gaps.mean() < found["high"] and found["images"] == 300


def test_images_that_both_sides_share_cancel() -> None:
    left = drawn(0.8, 2000, 0)[None]
    right = left.copy()
    right[0, :20] ^= True  # they differ on 20 images
    found = paired_bootstrap(left, right)
    apart = hypot(*(binomial_error(100 * side.mean(), 2000) for side in (left, right)))
    assert found["error"] < apart / 3
    assert inference.finite_error([100 * left.mean(), 100 * right.mean()], 2000) == pytest.approx(
        apart
    )
    same = paired_bootstrap(left, left)
    assert (same["error"], same["low"], same["high"]) == (0, 0, 0)


def test_the_audit_tells_it_of_every_difference(tree: Tree, tmp_path) -> None:
    _, record = audit(tree, tmp_path / "audit.json")
    told = {
        claim["id"]: claim["image_noise"] for claim in record["claims"] if "image_noise" in claim
    }
    assert told["C4"]["images"] == 9 and told["C4"]["low"] <= told["C4"]["high"]
    assert told["C1"] is None  # no run is about it
    verdicts = json.loads((tree.reports / "verdicts.json").read_text())["verdicts"]
    (stored,) = [v for v in verdicts if v["id"] == "C4"]
    assert told["C4"]["error"] <= stored["image_error"] * 1.1  # images are shared
    lower = audit(tree, tmp_path / "lower.json", ("--level", "L1"))[1]
    assert not any("image_noise" in claim for claim in lower["claims"])
