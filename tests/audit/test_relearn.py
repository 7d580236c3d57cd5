"""Probes learnt again with numpy are the suite's own, although no code is shared."""

import numpy as np
import pytest
import torch

from clsp.audit.relearn import keyed_uniform, relearn_linear, revote, spread_of, torch_uniform
from clsp.config.evaluation import KnnSpec, LinearSpec
from clsp.evaluate.knn import votes
from clsp.evaluate.linear import initial_layer, linear_logits, load_samples, train_linear
from clsp.models.nearest import neighbours
from clsp.pretrain.watch import effective_rank
from clsp.runtime.rng import key_of, uniform

CPU = torch.device("cpu")
LINEAR = {
    "epochs": 6, "batch_size": 7, "learning_rate": 0.5, "momentum": 0.9, "weight_decay": 0.01,
    "milestones": [4], "decay": 0.1, "flip": False,
}  # fmt: skip


@pytest.fixture
def case():
    drawn = np.random.default_rng(3)
    labels, truth = drawn.integers(0, 4, 40), drawn.integers(0, 4, 25)
    centres = drawn.normal(size=(4, 6))
    train = (centres[np.tile(labels, 2)] + drawn.normal(size=(80, 6))).astype(np.float32)
    test = (centres[truth] + drawn.normal(size=(25, 6))).astype(np.float32)
    return train, labels, test, truth


@pytest.mark.parametrize("changes", [{}, {"flip": True}, {"momentum": 0.0, "weight_decay": 0.0}])
def test_the_linear_probe_is_the_same(case, changes):
    train, labels, test, truth = case
    spec = LinearSpec.model_validate({**LINEAR, **changes})
    train = train if spec.flip else train[: len(labels)]
    samples = load_samples(np.split(train, len(train) // len(labels)), labels, 4, CPU)
    layer = train_linear(spec, samples, seed=11, label="test")
    wanted = linear_logits(test, *layer)
    found, logits = relearn_linear(spec, train, labels, test, truth, classes=4, seed=11)
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    assert found.correct == int((wanted.argmax(axis=1) == truth).sum())


def test_another_seed_gives_another_probe(case):
    train, labels, test, truth = case
    spec = LinearSpec.model_validate(LINEAR)
    fit = (train[: len(labels)], labels, test, truth)
    one, two = (relearn_linear(spec, *fit, classes=4, seed=seed)[1] for seed in (11, 12))
    assert np.abs(one - two).max() > 1e-3


def test_first_weights_are_those_that_torch_draws():
    weight, bias = initial_layer(6, 4, 11)
    drawn = torch_uniform(key_of(11, "linear-layer"), 6**-0.5, 28)
    np.testing.assert_array_equal(drawn[:24].reshape(4, 6), weight.numpy())
    np.testing.assert_array_equal(drawn[24:], bias.numpy())


def test_keyed_numbers_are_the_suites():
    key, images = key_of(5, "linear-flip"), np.array([0, 1, 7, 2**31])
    wanted = uniform(key, torch.from_numpy(images), 9, count=1)[:, 0].numpy()
    np.testing.assert_array_equal(keyed_uniform(key, images, 9), wanted)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_neighbours_vote_alike(case, k):
    train, labels, test, truth = case
    spec = KnnSpec(k=k, temperature=0.07, best_of=())
    plain = train[: len(labels)]
    cosines, rows = neighbours(plain, test, k, CPU)
    wanted = votes(cosines, labels[rows], 4, k, 0.07).argmax(axis=1)
    np.testing.assert_array_equal(revote(spec, plain, labels, test, truth, 4).guess, wanted)


def test_spread_of_healthy_features_is_near_one_and_their_rank_near_their_width():
    healthy = np.random.default_rng(0).normal(size=(400, 12))
    found = spread_of(healthy)
    assert 0.95 < found.deviation < 1.05 and found.rank > 11.5 and found.dead == 0


def test_rank_is_that_of_the_definition():
    """Of unit features it is what the step log watches, by torch's singular values."""
    features = np.random.default_rng(1).normal(size=(30, 8))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert spread_of(unit).rank == pytest.approx(
        float(effective_rank(torch.tensor(unit))), rel=1e-4
    )
    assert spread_of(unit[:5]).rank <= 5


@pytest.mark.parametrize(
    ("features", "check"),
    [
        (np.ones((20, 8)), lambda s: s.deviation < 1e-6 and s.rank < 1.01 and s.dead == 1),
        (np.outer(np.arange(1, 21), np.arange(8)), lambda s: s.rank < 1.01),
        (np.full((20, 8), np.nan), lambda s: not s.finite),
        (np.zeros((20, 8)), lambda s: s.finite and s.dead == 1),
    ],
    ids=["constant", "one line", "nan", "zero"],
)
def test_collapsed_features_are_seen(features, check):
    assert check(spread_of(features))
