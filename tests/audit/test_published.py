"""Positive controls: the authors' published logs pass our identities, and what is odd is found.

The logs here are samples of them (every 20th step early on, every 240th later), rounded; momenta are
known at six steps. They hold no gradient norms, no features and no predictions, so that nothing but
identities of losses, rates, momenta and steps can be looked at.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clsp.audit.checks.a05_settings import _difference
from clsp.audit.checks.a10_bank import _images
from clsp.audit.checks.a13_seeds import twins
from clsp.audit.checks.a15_losses import expected_momenta, expected_rates
from clsp.audit.checks.a21_selection import ALLOWED
from clsp.audit.checks.a25_protocol import unpaired

FOLDER = Path(__file__).parent / "published"
RUNS = json.loads((FOLDER / "curves.json").read_text())["runs"]
ODD = json.loads((FOLDER / "irregularities.json").read_text())
IMAGES = 50_000  # of both datasets
LATE = ODD["rate_logged_after_the_step"]
# Logs rates before the scheduler's step: CLSP-MoCo's script, in all its runs but one.
BEFORE = [name for name in RUNS if name.startswith("moco_clsp") and name != LATE]


@pytest.fixture(params=sorted(RUNS))
def run(request):
    return SimpleNamespace(name=request.param, **RUNS[request.param])


def test_all_eighteen_are_here():
    assert len(RUNS) == 18


def test_losses_are_the_sum_of_their_parts(run):
    base = next(k for k in vars(run) if k.startswith("early_loss_") and not k.endswith("clsp"))
    parts = dict(getattr(run, base))
    pulled, weight = dict(getattr(run, "early_loss_clsp", [])), run.config.get("clsp_loss_weight")
    for step, loss in run.early_loss:
        rounding = 0.5e-4 * (2 + (weight or 0)) + 1e-9
        assert abs(loss - parts[step] - (weight or 0) * pulled.get(step, 0)) <= rounding, step
    assert bool(pulled) == (weight is not None)


def test_a_loss_of_another_weight_would_be_seen(run):
    """The samples are sharp enough to tell lambda 0.5 from 0.6."""
    if not hasattr(run, "early_loss_clsp"):
        return
    assert max(value for _, value in run.early_loss_clsp) * 0.1 > 0.5e-4 * 3


def _rates(run, places) -> np.ndarray:
    recipe = SimpleNamespace(
        learning_rate=run.config["lr"],
        learning_rate_scaling="none",
        batch_size=run.config["batch_size"],
        warmup_epochs=10,
        warmup_start=run.config["warmup_start_lr"],
        epochs=run.config["epoch"],
    )
    return expected_rates(recipe, np.asarray(places), 1)


def test_rates_follow_the_schedule(run):
    shift = 0 if run.name in BEFORE else 1  # logged behind the scheduler's step: the next epoch's
    tags = np.arange(len(run.lr_epoch_tag_first10))
    np.testing.assert_allclose(run.lr_epoch_tag_first10, _rates(run, tags + shift), atol=1e-6)


def test_the_run_that_predates_the_released_code_is_found():
    """Of four runs of one script, one logs the rate of the next epoch."""
    odd = []
    for name in [*BEFORE, LATE]:
        run = SimpleNamespace(**RUNS[name])
        tags = np.arange(len(run.lr_epoch_tag_first10))
        if np.abs(np.array(run.lr_epoch_tag_first10) - _rates(run, tags)).max() > 1e-6:
            odd.append(name)
    assert odd == [LATE]


def test_momenta_follow_the_schedule(run):
    total = run.iters_per_epoch * run.config["epoch"]
    points = getattr(run, "momentum_tau", [])
    assert bool(points) == run.name.startswith("moco")
    if points:
        steps = np.array([point["iter"] for point in points])
        found = [point["value"] for point in points]
        start, end = run.config["moco_momentum"], 0.999
        np.testing.assert_allclose(found, expected_momenta(start, end, steps, total), atol=1e-6)


def test_steps_are_those_of_the_schedule(run):
    assert run.iters_per_epoch == IMAGES // run.config["batch_size"]
    total = run.iters_per_epoch * run.config["epoch"]
    assert run.n_logged_per_loss == -(-total // 20)
    assert [step for step, _ in run.early_loss[:25]] == list(range(0, 500, 20))


def test_one_checkpoint_under_two_rows_is_found():
    assert list(twins(ODD["checkpoints"])) == [
        ("CLSP-MoCo cifar100 resnet18", "CLSP-MoCo cifar10 resnet18")
    ]


@pytest.mark.parametrize("pair", ODD["pairs"], ids=lambda pair: pair[0][:30])
def test_pairs_of_other_seeds_are_found(pair):
    assert unpaired({name: [RUNS[name]["config"]["seed"]] for name in pair})


def test_pairs_of_equal_seeds_are_not():
    pair = [n for n in RUNS if n.startswith(("simclr_cifar10_", "simclr_clsp_cifar10_"))]
    assert len(pair) == 4
    assert unpaired({name: [RUNS[name]["config"]["seed"]] for name in pair}) is None


@pytest.mark.parametrize("name", sorted(ODD["settings_in_released_yaml"]))
def test_settings_other_than_the_released_ones_are_found(name):
    released = ODD["settings_in_released_yaml"][name]
    logged = RUNS[name]["config"]
    (key,) = released
    assert _difference(logged, {**logged, **released}) == (key, logged[key], released[key])


def test_selection_on_the_test_set_is_found():
    knn = ODD["knn"]
    assert knn["selected_on"] not in ALLOWED[(knn["protocol"], knn["variant"])]


def test_a_black_image_from_a_missed_index_is_found():
    """Their script fills an array with zeros and then the images that were drawn."""
    assert ODD["synthesis"]["zero_filled"]
    drawn = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 4, 3), dtype=np.uint8)
    drawn[1, 2] = 0
    anchors = np.random.default_rng(1).integers(0, 255, (2, 4, 4, 3), dtype=np.uint8)
    index = np.zeros(6, [("anchor", "<i8"), ("candidate", "<i4")])
    assert list(_images(drawn, anchors, index)) == ["anchor 1 candidate 2 is of one colour"]
