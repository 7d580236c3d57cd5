"""Schedules and step logs, against plain Python and against a real run of every method."""

import json
import math

import numpy as np
import pytest
from pretraining import RECIPE, make_spec
from results_tree import tiny_params

from clsp.audit.checks.a15_losses import (
    _columns,
    _schedules,
    _values,
    expected_momenta,
    expected_rates,
)
from clsp.config.grid import expand_runs
from clsp.config.schema import RecipeSpec
from clsp.pretrain.optim import learning_rate

RUNS = expand_runs(tiny_params())


@pytest.mark.parametrize(("warmup", "start"), [(0, 0.0), (1, 0.01), (3, 0.0), (4, 0.02)])
def test_rates_are_the_loop_s(warmup: int, start: float) -> None:
    changed = {**RECIPE, "epochs": 9, "warmup_epochs": warmup, "warmup_start": start}
    recipe = RecipeSpec.model_validate(changed)
    found = expected_rates(recipe, np.arange(9))
    assert found == pytest.approx([learning_rate(recipe, epoch) for epoch in range(9)], rel=1e-12)


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


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_a_real_run_passes(method: str, tmp_path) -> None:
    from pretraining import write_dataset

    from clsp.pretrain.run import pretrain_encoder

    spec = make_spec(method, "augmentation")
    names = ("encoder", "start", "middle", "final", "history")
    outcome = pretrain_encoder(
        spec,
        write_dataset(tmp_path / "data"),
        [],
        **{name: tmp_path / name for name in names},
        scratch=tmp_path / "scratch",
    )
    run = RUNS["digits.tiny.simclr.synthetic.s0"].__class__
    made = object.__new__(run)
    object.__setattr__(made, "spec", spec)
    records = [json.loads(line) for line in (tmp_path / "history").read_text().splitlines()]
    terms = outcome.facts["terms"]
    assert terms == ["info_nce"]
    for check in (_columns, _values):
        assert check(made, terms, records) is None
    assert _schedules(made, records) is None
    for name in {"lr", "momentum"} & records[0].keys():
        records[-1][name] *= 1.001
        assert _schedules(made, records)[0].startswith(name)
        records[-1][name] /= 1.001
