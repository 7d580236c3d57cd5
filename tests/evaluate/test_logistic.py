"""Logistic regression against scikit-learn and first principles."""

import warnings

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as Reference

from clsp.config.evaluation import LogisticSpec
from clsp.evaluate.logistic import Fit, LogisticRegression, grid, principal_axes, turn

CPU = torch.device("cpu")
SPEC = LogisticSpec(
    low=-6,
    high=5,
    count=12,
    max_iterations=1000,
    tolerance=1e-4,
    validation="stratified",
    validation_fraction=0.2,
    seed=0,
)
TIGHT = SPEC.model_copy(update={"tolerance": 1e-8, "max_iterations": 5000})


def draw(count: int = 240, width: int = 12, classes: int = 5, noise: float = 1.5) -> tuple:
    """Overlapping classes with a large common mean, like features behind a ReLU."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, width))
    features = np.maximum(centres[labels] + noise * rng.normal(size=(count, width)) + 2, 0)
    return features.astype(np.float32), labels.astype(np.int64)


def draw_several(count: int = 240, width: int = 12, classes: int = 4) -> tuple:
    """Images that show between none and all of the classes."""
    rng = np.random.default_rng(1)
    features = np.maximum(rng.normal(size=(count, width)) + 1, 0).astype(np.float32)
    scores = features @ rng.normal(size=(width, classes)) + 2 * rng.normal(size=(count, classes))
    return features, (scores > np.median(scores, axis=0) + 1).astype(np.uint8)


def reference(features: np.ndarray, labels: np.ndarray, strength: float) -> Reference:
    model = Reference(C=10.0**-strength, tol=1e-8, max_iter=50000)
    with warnings.catch_warnings():  # its line search gives up near 1e-8
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features.astype(np.float64), labels)


def gradient(features: np.ndarray, labels: np.ndarray, fit: Fit, strength: float) -> float:
    """Largest entry of the gradient of the objective, in plain numpy."""
    weight, bias = fit.weight.numpy(), fit.bias.numpy()
    scores = features.astype(np.float64) @ weight.T + bias
    if labels.ndim == 1:
        residual = softmax(scores, axis=1) - np.eye(len(bias))[labels]
    else:
        residual = expit(scores) - labels
    count = len(features)
    slopes = residual.T @ features / count + 10.0**strength / count * weight
    return float(max(np.abs(slopes).max(), np.abs(residual.mean(0)).max()))


@pytest.mark.parametrize("strength", [5.0, 4.0, 2.0, 1.0, 0.0, -1.0, -3.0])
def test_solutions_equal_scikit_learn(strength: float) -> None:
    features, labels = draw()
    fit = LogisticRegression(features[:160], labels[:160], 5, TIGHT, CPU).fit(strength)
    model = reference(features[:160], labels[:160], strength)
    assert fit.converged
    np.testing.assert_allclose(fit.weight.numpy(), model.coef_, rtol=1e-3, atol=1e-3)
    chances = softmax(fit.logits(features[160:]), axis=1)
    np.testing.assert_allclose(chances, model.predict_proba(features[160:]), atol=1e-4)


@pytest.mark.parametrize("shape", [(600, 40, 7, 4.0), (90, 200, 4, 9.0), (240, 12, 5, 1.5)])
def test_the_whole_warm_started_grid_scores_like_scikit_learn(shape: tuple) -> None:
    features, labels = draw(*shape)
    train = 2 * len(labels) // 3
    problem, fit = LogisticRegression(features[:train], labels[:train], shape[2], TIGHT, CPU), None
    for strength in grid(SPEC.model_copy(update={"low": -3})):
        fit = problem.fit(strength, fit)
        assert fit.converged
        model = reference(features[:train], labels[:train], strength)
        ours = 100 * (fit.logits(features[train:]).argmax(1) == labels[train:]).mean()
        assert ours == pytest.approx(100 * model.score(features[train:], labels[train:]), abs=0.1)


def test_separable_classes_score_like_the_optimum_at_every_value_of_the_grid() -> None:
    digits = load_digits()
    features, labels = (digits.data / 16).astype(np.float32), digits.target.astype(np.int64)
    spec = SPEC.model_copy(update={"tolerance": 1e-6})
    problem, fit = LogisticRegression(features[:1347], labels[:1347], 10, spec, CPU), None
    exact = Reference(solver="newton-cholesky", tol=1e-10, max_iter=200, warm_start=True)
    for strength in grid(spec):
        fit = problem.fit(strength, fit)
        exact.set_params(C=10.0**-strength).fit(features[:1347].astype(np.float64), labels[:1347])
        ours = 100 * (fit.logits(features[1347:]).argmax(1) == labels[1347:]).mean()
        theirs = 100 * exact.score(features[1347:].astype(np.float64), labels[1347:])
        assert fit.converged
        assert ours == pytest.approx(theirs, abs=0.1)


def test_the_gradient_is_small_beside_the_penalty_however_weak_that_is() -> None:
    features, labels = draw(60, 20)
    problem = LogisticRegression(features, labels, 5, SPEC, CPU)
    for strength in (3.0, -3.0):
        fit = problem.fit(strength)
        pull = 10.0**strength / 60 * float((fit.weight @ problem.axes).abs().max())
        assert fit.tolerance == pytest.approx(min(1e-4, 0.01 * pull))
        assert fit.gradient <= fit.tolerance
    assert problem.fit(-3.0).tolerance < 1e-4 < problem.fit(3.0).tolerance * 1.01


def test_features_that_say_nothing_leave_no_weight_and_do_converge() -> None:
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    fit = LogisticRegression(np.full((60, 4), 7, np.float32), labels, 3, SPEC, CPU).fit(0.0)
    assert fit.converged
    np.testing.assert_allclose(fit.weight, 0, atol=1e-9)
    chances = softmax(fit.logits(np.full((1, 4), 7, np.float32)), axis=1)
    np.testing.assert_allclose(chances, [[1 / 6, 2 / 6, 3 / 6]], atol=1e-3)


def test_two_classes_are_scikit_learns_with_twice_its_c() -> None:
    features, labels = draw(classes=2)
    for strength in (2.0, 0.0, -2.0):
        fit = LogisticRegression(features[:160], labels[:160], 2, TIGHT, CPU).fit(strength)
        model = reference(features[:160], labels[:160], strength - np.log10(2))
        np.testing.assert_allclose((fit.weight[1] - fit.weight[0]).numpy(), model.coef_[0], rtol=1e-3, atol=1e-4)  # fmt: skip
        logits = fit.logits(features[160:])
        np.testing.assert_array_equal(logits.argmax(1), model.predict(features[160:]))


@pytest.mark.parametrize("strength", [4.0, 1.0, -1.0])
def test_several_classes_per_image_are_one_binary_regression_each(strength: float) -> None:
    features, labels = draw_several()
    fit = LogisticRegression(features[:160], labels[:160], 4, TIGHT, CPU).fit(strength)
    assert fit.converged
    logits = fit.logits(features[160:])
    for column in range(4):
        model = reference(features[:160], labels[:160, column], strength)
        np.testing.assert_allclose(fit.weight[column].numpy(), model.coef_[0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(
            logits[:, column], model.decision_function(features[160:]), rtol=1e-3, atol=2e-3
        )


def test_a_class_that_nothing_shows_does_not_disturb_the_others() -> None:
    features, labels = draw_several()
    with_empty = np.concatenate([labels, np.zeros((240, 1), np.uint8)], axis=1)
    plain = LogisticRegression(features, labels, 4, TIGHT, CPU).fit(0.0)
    more = LogisticRegression(features, with_empty, 5, TIGHT, CPU).fit(0.0)
    np.testing.assert_allclose(more.weight[:4], plain.weight, atol=1e-5)
    assert (more.logits(features)[:, 4] < -5).all()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("strength", [3.0, -1.0])
def test_the_recorded_gradient_is_that_of_the_objective(several: bool, strength: float) -> None:
    features, labels = draw_several() if several else draw()
    hasty = SPEC.model_copy(update={"tolerance": 1e-12, "max_iterations": 12})
    for spec in (SPEC, hasty):
        fit = LogisticRegression(features, labels, 4 if several else 5, spec, CPU).fit(strength)
        expected = gradient(features, labels, fit, strength)
        assert fit.gradient == pytest.approx(expected, rel=1e-5, abs=1e-14)
        assert fit.converged == (expected <= fit.tolerance)
        assert fit.tolerance <= spec.tolerance


def test_the_objective_is_the_mean_loss_plus_lambda_over_2n() -> None:
    features, labels = draw(40, 3, 3)
    problem = LogisticRegression(features, labels, 3, SPEC, CPU)
    weight = np.random.default_rng(1).normal(size=(3, 3))
    bias = np.array([0.1, -0.2, 0.3])
    chances = softmax(features @ weight.T + bias, axis=1)
    expected = -np.log(chances[np.arange(40), labels]).mean() + 2.5 / 80 * (weight**2).sum()
    found = problem.objective(torch.from_numpy(weight), torch.from_numpy(bias), np.log10(2.5))
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_solution_is_no_worse_than_scikit_learns() -> None:
    features, labels = draw(300, 30, 4, 3.0)
    problem = LogisticRegression(features, labels, 4, TIGHT, CPU)
    for strength in (3.0, 0.0, -4.0):
        fit, model = problem.fit(strength), reference(features, labels, strength)
        theirs = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
        ours = problem.objective(fit.weight, fit.bias, strength)
        assert ours <= problem.objective(*theirs, strength) + 1e-10


def test_features_that_float32_cannot_resolve_are_solved_all_the_same() -> None:
    features, labels = draw()
    wild = features * np.logspace(-3, 3, 12).astype(np.float32)  # condition number 1e12
    fit = LogisticRegression(wild, labels, 5, TIGHT, CPU).fit(-2.0)
    assert fit.converged
    assert fit.gradient == pytest.approx(gradient(wild, labels, fit, -2.0), abs=1e-9)


def test_repeated_and_constant_features_do_no_harm() -> None:
    features, labels = draw(width=6)
    twice = np.concatenate([features, features, np.full((240, 2), 3, np.float32)], axis=1)
    plain = LogisticRegression(features, labels, 5, TIGHT, CPU).fit(0.0)
    fit = LogisticRegression(twice, labels, 5, TIGHT, CPU).fit(np.log10(2))
    assert fit.converged
    # Both copies share the weight, so that the same solution costs half the penalty.
    np.testing.assert_allclose(fit.weight[:, :6] + fit.weight[:, 6:12], plain.weight, atol=1e-4)
    np.testing.assert_allclose(fit.weight[:, 12:], 0, atol=1e-9)


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (20, 20)])
def test_principal_axes_span_the_features_and_are_uncorrelated(shape: tuple[int, int]) -> None:
    inputs = torch.from_numpy(np.random.default_rng(0).normal(size=shape))
    inputs = inputs - inputs.mean(0)
    axes = principal_axes(inputs)
    assert axes.shape == (shape[1], min(shape))
    np.testing.assert_allclose(axes.T @ axes, np.eye(min(shape)), atol=1e-12)
    expected = inputs @ axes
    turned = turn(inputs.clone(), axes)
    np.testing.assert_allclose(turned, expected, atol=1e-12)
    products = turned.T @ turned
    np.testing.assert_allclose(products, torch.diag(products.diagonal()), atol=1e-9)
    np.testing.assert_allclose(turned @ axes.T, inputs, atol=1e-9)


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


def test_a_warm_start_may_come_from_another_training_set() -> None:
    features, labels = draw(60, 100)  # of fewer images than features each set has its own span
    part = LogisticRegression(features[:40], labels[:40], 5, TIGHT, CPU).fit(0.0)
    problem = LogisticRegression(features, labels, 5, TIGHT, CPU)
    warm, cold = problem.fit(0.0, part), problem.fit(0.0)
    assert warm.converged
    np.testing.assert_allclose(warm.weight, cold.weight, atol=1e-5)


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


def test_one_image_per_class_can_be_fitted() -> None:
    features, labels = draw(5, 64)
    fit = LogisticRegression(features, labels, 5, TIGHT, CPU).fit(0.0)
    assert fit.converged
    np.testing.assert_array_equal(fit.logits(features).argmax(1), labels)


def test_the_same_problem_gives_the_same_bytes() -> None:
    fits = [LogisticRegression(*draw(), 5, SPEC, CPU).fit(0.0) for _ in range(2)]
    assert torch.equal(fits[0].weight, fits[1].weight)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("several", [False, True])
def test_a_gpu_finds_the_same_solution(several: bool) -> None:
    features, labels = draw_several() if several else draw()
    classes = 4 if several else 5
    for strength in (2.0, -2.0):
        fits = [
            LogisticRegression(features, labels, classes, TIGHT, torch.device(name)).fit(strength)
            for name in ("cpu", "cuda")
        ]
        assert fits[1].converged
        np.testing.assert_allclose(fits[1].weight.cpu(), fits[0].weight, atol=1e-4)
        np.testing.assert_allclose(fits[1].logits(features), fits[0].logits(features), atol=1e-3)


def test_threads_are_as_many_afterwards_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        LogisticRegression(*draw(), 5, SPEC, CPU).fit(0.0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_grid_runs_from_strong_to_weak() -> None:
    assert grid(SPEC) == [5.0, 4.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0]
    assert len(grid(SPEC.model_copy(update={"count": 45}))) == 45
