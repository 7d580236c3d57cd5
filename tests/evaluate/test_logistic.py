"""Logistic regression against scikit-learn and first principles."""

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression as Reference

from clsp.config.evaluation import LogisticSpec
from clsp.evaluate.logistic import LogisticRegression, grid

CPU = torch.device("cpu")
SPEC = LogisticSpec(
    low=-6, high=5, count=12, max_iterations=1000, tolerance=1e-4, validation_fraction=0.2, seed=0
)
TIGHT = SPEC.model_copy(update={"tolerance": 1e-7, "max_iterations": 5000})


def draw(count: int = 240, width: int = 12, classes: int = 5, noise: float = 1.5) -> tuple:
    """Overlapping classes with a large common mean, like features behind a ReLU."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, width))
    features = np.maximum(centres[labels] + noise * rng.normal(size=(count, width)) + 2, 0)
    return features.astype(np.float32), labels.astype(np.int64)


def reference(features: np.ndarray, labels: np.ndarray, strength: float) -> Reference:
    model = Reference(C=10.0**-strength, tol=1e-7, max_iter=20000)
    return model.fit(features.astype(np.float64), labels)


@pytest.mark.parametrize("strength", [4.0, 2.0, 1.0, 0.0, -1.0, -3.0])
def test_solutions_equal_scikit_learn(strength: float) -> None:
    features, labels = draw()
    fit = LogisticRegression(features[:160], labels[:160], 5, TIGHT, CPU).fit(strength)
    model = reference(features[:160], labels[:160], strength)
    assert fit.converged
    np.testing.assert_allclose(fit.weight.numpy(), model.coef_, rtol=2e-3, atol=2e-3)
    chances = softmax(fit.logits(features[160:]), axis=1)
    np.testing.assert_allclose(chances, model.predict_proba(features[160:]), atol=1e-3)
    ours = 100 * (chances.argmax(1) == labels[160:]).mean()
    assert ours == pytest.approx(100 * model.score(features[160:], labels[160:]), abs=0.1)


def test_the_whole_warm_started_grid_scores_like_scikit_learn() -> None:
    features, labels = draw()
    problem, fit = LogisticRegression(features[:160], labels[:160], 5, TIGHT, CPU), None
    for strength in grid(SPEC):
        fit = problem.fit(strength, fit)
        assert fit.converged
        model = reference(features[:160], labels[:160], strength)
        ours = 100 * (fit.logits(features[160:]).argmax(1) == labels[160:]).mean()
        assert ours == pytest.approx(100 * model.score(features[160:], labels[160:]), abs=0.1)


def test_the_gradient_is_that_of_the_objective() -> None:
    problem = LogisticRegression(*draw(40, 3, 3), 3, SPEC, CPU)
    point = np.random.default_rng(1).normal(size=12)
    error = check_grad(
        lambda x: problem.objective(x, 2.5)[0], lambda x: problem.objective(x, 2.5)[1], point
    )
    assert error < 1e-5


def test_the_objective_is_the_mean_loss_plus_lambda_over_2n() -> None:
    features, labels = draw(40, 3, 3)
    problem = LogisticRegression(features, labels, 3, SPEC, CPU)
    weight = np.random.default_rng(1).normal(size=(3, 3))
    bias = np.array([0.1, -0.2, 0.3])
    centred = features - features.mean(0)
    chances = softmax(centred @ weight.T + bias, axis=1)
    expected = -np.log(chances[np.arange(40), labels]).mean() + 2.5 / 80 * (weight**2).sum()
    packed = np.concatenate([weight, bias[:, None]], axis=1).ravel()
    assert problem.objective(packed, 2.5)[0] == pytest.approx(expected, rel=1e-6)


def test_a_strong_regulariser_leaves_the_class_frequencies() -> None:
    features, _ = draw()
    labels = np.repeat([0, 1, 2], [120, 80, 40])
    fit = LogisticRegression(features, labels, 3, TIGHT, CPU).fit(9.0)
    assert fit.weight.abs().max() < 1e-5
    chances = softmax(fit.logits(features), axis=1)  # the bias is not penalised
    np.testing.assert_allclose(chances, np.tile([3 / 6, 2 / 6, 1 / 6], (240, 1)), atol=1e-3)


def test_centring_inside_does_not_show_outside() -> None:
    features, labels = draw()
    plain = LogisticRegression(features, labels, 5, TIGHT, CPU).fit(1.0)
    moved = LogisticRegression(features + 20, labels, 5, TIGHT, CPU).fit(1.0)
    np.testing.assert_allclose(plain.weight, moved.weight, atol=1e-4)
    np.testing.assert_allclose(plain.logits(features), moved.logits(features + 20), atol=1e-3)


def test_a_warm_start_at_the_solution_stays_there() -> None:
    problem = LogisticRegression(*draw(), 5, TIGHT, CPU)
    cold = problem.fit(0.0)
    assert cold.iterations > 5
    warm = problem.fit(0.0, cold)
    assert warm.iterations <= 1
    np.testing.assert_allclose(cold.weight, warm.weight, atol=1e-6)


def test_too_few_iterations_are_recorded_as_not_converged() -> None:
    hasty = SPEC.model_copy(update={"max_iterations": 2, "tolerance": 1e-9})
    fit = LogisticRegression(*draw(), 5, hasty, CPU).fit(-3.0)
    assert not fit.converged
    assert fit.gradient > 1e-9
    assert fit.iterations == 2


def test_a_class_that_is_absent_from_training_is_never_predicted() -> None:
    features, labels = draw(classes=4)
    fit = LogisticRegression(features, labels, 5, SPEC, CPU).fit(1.0)
    logits = fit.logits(features)
    assert logits.shape == (240, 5)
    assert np.isfinite(logits).all()
    assert logits.argmax(1).max() < 4


def test_the_grid_runs_from_strong_to_weak() -> None:
    assert grid(SPEC) == [5.0, 4.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0]
    assert len(grid(SPEC.model_copy(update={"count": 45}))) == 45
