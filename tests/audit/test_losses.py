"""Schedules and step logs, against plain Python and against a real run of every method."""

import json
import math

import numpy as np
import pytest
from pretraining import NOTHING, RECIPE, make_spec
from results_tree import tiny_params

from clsp.audit.checks.a15_losses import (
    _columns,
    _schedules,
    _values,
    expected_momenta,
    expected_rates,
)
from clsp.config.grid import expand_runs
from clsp.config.recipe import RecipeSpec
from clsp.config.schema import METHODS
from clsp.pretrain.optim import learning_rate
from clsp.runtime.registry import names

RUNS = expand_runs(tiny_params())


@pytest.mark.parametrize("scaling", ["none", "batch_256"])
@pytest.mark.parametrize("schedule", ["epoch", "step"])
@pytest.mark.parametrize(("warmup", "start"), [(0, 0.0), (1, 0.01), (3, 0.0), (4, 0.02)])
def test_rates_are_the_loop_s(warmup: int, start: float, schedule: str, scaling: str) -> None:
    changed = {"epochs": 9, "warmup_epochs": warmup, "warmup_start": start, "schedule": schedule}
    recipe = RecipeSpec.model_validate({**RECIPE, **changed, "learning_rate_scaling": scaling})
    per_epoch, steps = 5, np.arange(45)
    places, unit = (steps, per_epoch) if schedule == "step" else (steps // per_epoch, 1)
    found = expected_rates(recipe, places, unit)
    theirs = [learning_rate(recipe, int(step), per_epoch) for step in steps]
    assert found == pytest.approx(theirs, rel=1e-12)


def test_momentum_by_hand() -> None:
    found = expected_momenta(0.9, 1.0, np.array([0, 1, 2, 3]), 4)
    later = [1 - 0.1 * (math.cos(math.pi * s / 4) + 1) / 2 for s in (1, 2)]
    assert found == pytest.approx([0.9, 0.9, *later])


def _records(**changes: float) -> list[dict[str, float]]:
    parts = {"info_nce": 2.0, "alignment": 0.5, "loss": 2.5, "embedding_std": 0.1}
    return [
        {"step": step, "epoch": step // 3, "lr": (0.001, 0.1)[step // 3], **parts, **changes}
        for step in range(6)
    ]


def test_what_a_method_logs_beside_its_terms_is_no_part_of_the_loss() -> None:
    run = RUNS["digits.tiny.simclr.synthetic.s0"]
    records = _records(queue_age=7.0)
    assert _columns(run, ["info_nce"], records) is None
    assert _values(run, ["info_nce"], records) is None
    assert _schedules(run, records) is None
    assert "queue_age" not in str(_values(run, ["info_nce"], _records(loss=2.0)))


def test_alignment_belongs_to_positives() -> None:
    baseline, paired = (RUNS[f"digits.tiny.simclr.{p}.s0"] for p in ("none", "synthetic"))
    without = [{k: v for k, v in r.items() if k != "alignment"} for r in _records(loss=2.0)]
    assert _columns(baseline, ["info_nce"], without) is None
    assert "alignment in step 0" in _columns(baseline, ["info_nce"], _records())[1]
    assert "without alignment" in _columns(paired, ["info_nce"], without)[1]


@pytest.mark.parametrize("terms", [[], ["alignment"], ["info_nce", "loss"]])
def test_terms_must_be_terms(terms: list[str]) -> None:
    run = RUNS["digits.tiny.simclr.synthetic.s0"]
    assert _columns(run, terms, _records()) is not None


@pytest.mark.parametrize("method", names(METHODS))
def test_a_real_run_passes(method: str, tmp_path) -> None:
    from pretraining import write_dataset

    from clsp.pretrain.run import pretrain_encoder

    # A rate that the narrowest encoder bears: All4One's overflows its gradients at 0.1.
    gentle = {"learning_rate": 0.01, "warmup_start": 0.001}
    spec = make_spec(method, "augmentation", gentle)
    written = ("encoder", "start", "middle", "final", "history")
    outcome = pretrain_encoder(
        spec,
        write_dataset(tmp_path / "data"),
        **NOTHING,
        **{name: tmp_path / name for name in written},
        scratch=tmp_path / "scratch",
    )
    run = RUNS["digits.tiny.simclr.synthetic.s0"].__class__
    made = object.__new__(run)
    object.__setattr__(made, "spec", spec)
    records = [json.loads(line) for line in (tmp_path / "history").read_text().splitlines()]
    terms = outcome.facts["terms"]
    assert terms
    for check in (_columns, _values):
        assert check(made, terms, records) is None
    assert _schedules(made, records) is None
    for name in {"lr", "momentum"} & records[0].keys():
        records[-1][name] *= 1.001
        assert _schedules(made, records)[0].startswith(name)
        records[-1][name] /= 1.001
