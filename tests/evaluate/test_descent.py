"""The minimiser against SciPy's, and its parts against plain formulas."""

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad, minimize

from clsp.evaluate.descent import MEMORY, History, State, descend, search
from clsp.evaluate.losses import Loss


def make_loss(exclusive: bool = True, dtype: torch.dtype = torch.float64) -> Loss:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(80, 6)) * np.logspace(-2, 2, 6)
    inputs = np.linalg.svd(inputs - inputs.mean(0), full_matrices=False)
    inputs = inputs.U * inputs.S  # uncorrelated columns
    targets = np.eye(4)[rng.integers(0, 4, 80)].T
    if not exclusive:
        targets = (rng.uniform(size=(4, 80)) < 0.3).astype(float)
    return Loss(torch.from_numpy(inputs).to(dtype), torch.from_numpy(targets).to(dtype), exclusive)


def objective(loss: Loss, packed: np.ndarray, decay: float) -> tuple[float, np.ndarray]:
    point = torch.from_numpy(packed).view(4, 7)
    scores = loss.scores(point)
    value = loss.value(scores) + 0.5 * decay * float(point[:, :-1].square().sum())
    return value, loss.gradient(loss.residual(scores), point, decay).numpy().ravel()


def run(loss: Loss, decay: float, tolerance: float, limit: int = 1000) -> State:
    point = torch.zeros(4, 7, dtype=torch.float64)
    state = State.at(point)
    descend(loss, state, decay, limit, lambda now: float(now.gradient.abs().max()) <= tolerance)
    return state


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_gradient_is_that_of_the_value(exclusive: bool) -> None:
    loss, point = make_loss(exclusive), np.random.default_rng(1).normal(size=28) * 0.1
    error = check_grad(
        lambda x: objective(loss, x, 0.3)[0], lambda x: objective(loss, x, 0.3)[1], point
    )
    assert error < 1e-5


@pytest.mark.parametrize("exclusive", [True, False])
def test_slope_and_rise_are_those_of_the_value(exclusive: bool) -> None:
    loss, rng = make_loss(exclusive), np.random.default_rng(2)
    scores, move = (torch.from_numpy(rng.normal(size=(4, 80))) for _ in range(2))
    there = scores + 0.7 * move
    assert loss.rise(scores, there, 0.7, move) == pytest.approx(
        loss.value(there) - loss.value(scores), abs=1e-12
    )
    tiny = 1e-6
    expected = (loss.value(scores + tiny * move) - loss.value(scores - tiny * move)) / (2 * tiny)
    assert loss.slope(loss.residual(scores), move) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_scale_is_the_curvature_at_zero_weights(exclusive: bool) -> None:
    loss, decay, tiny = make_loss(exclusive), 0.05, 1e-5
    scale = loss.scale(torch.zeros(4, 80, dtype=torch.float64), decay)
    for column in range(7):
        move = torch.zeros(4, 7, dtype=torch.float64)
        # Along this direction the softmax has the curvature that its scale promises.
        move[:, column] = torch.tensor([1.0, -1.0, 0, 0]) / np.sqrt(2)
        slopes = [
            loss.gradient(loss.residual(loss.scores(sign * tiny * move)), sign * tiny * move, decay)
            for sign in (1, -1)
        ]
        found = float(((slopes[0] - slopes[1]) * move).sum()) / (2 * tiny)
        assert found == pytest.approx(float(scale[0, column]) ** 2, rel=1e-3)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("decay", [10.0, 0.1, 1e-4])
def test_the_minimum_is_scipys(exclusive: bool, decay: float) -> None:
    loss = make_loss(exclusive)
    state = run(loss, decay, 1e-10)
    found = minimize(
        lambda x: objective(loss, x, decay),
        np.zeros(28),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 40000, "gtol": 1e-10, "ftol": 0.0},
    )
    assert objective(loss, state.point.numpy().ravel(), decay)[0] <= found.fun + 1e-12
    np.testing.assert_allclose(
        loss.scores(state.point), loss.scores(torch.from_numpy(found.x).view(4, 7)), atol=1e-3
    )
    assert state.iterations < found.nit


def test_every_iteration_lowers_the_value_down_to_rounding() -> None:
    loss, values = make_loss(), []

    def watch(now: State) -> bool:
        values.append(objective(loss, now.point.numpy().ravel(), 0.001)[0])
        return float(now.gradient.abs().max()) <= 1e-10

    point = torch.zeros(4, 7, dtype=torch.float64)
    state = State.at(point)
    descend(loss, state, 0.001, 1000, watch)
    assert len(values) > 10
    assert (np.diff(values) <= 1e-15).all()


def test_float32_comes_close_and_stops_by_itself() -> None:
    exact, rough = run(make_loss(), 0.01, 1e-10), run(make_loss(dtype=torch.float32), 0.01, 0.0)
    assert rough.point.dtype == torch.float64
    np.testing.assert_allclose(rough.point, exact.point, atol=1e-2)


def test_a_step_that_is_far_too_short_or_long_is_corrected() -> None:
    loss, point = make_loss(), torch.zeros(4, 7, dtype=torch.float64)
    scores = loss.scores(point)
    gradient = loss.gradient(loss.residual(scores), point, 0.1)
    state = State(point, History(point), gradient)
    downhill = -gradient / loss.scale(scores, 0.1).square()
    for length in (1e-4, 1.0, 1e4):
        step, there, _ = search(loss, state, 0.1, length * downhill, scores)
        moved = step * length * downhill
        np.testing.assert_allclose(there, loss.scores(moved), atol=1e-9)
        after = loss.gradient(loss.residual(there), moved, 0.1)
        before, now = float((gradient * downhill).sum()), float((after * downhill).sum())
        assert abs(now) <= 0.25 * abs(before)


def test_binary_losses_have_a_scale_each_and_certain_predictions_next_to_none() -> None:
    loss, rng = make_loss(exclusive=False), np.random.default_rng(4)
    scores = torch.from_numpy(3 * rng.normal(size=(4, 80)))
    scores[3] = 1000.0
    chances = scores[:3].sigmoid()
    spread = chances * (1 - chances)
    expected = spread @ loss.inputs.square() / 80 + 0.01
    found = loss.scale(scores, 0.01).square()
    np.testing.assert_allclose(found[:3, :-1], expected, rtol=1e-3)
    np.testing.assert_allclose(found[:3, -1], spread.mean(1), rtol=1e-3)
    np.testing.assert_allclose(found[3, :-1], 0.01, rtol=1e-3)
    assert 0 < found[3, -1] < 1e-4


def test_no_step_is_taken_uphill() -> None:
    loss, point = make_loss(), torch.zeros(4, 7, dtype=torch.float64)
    scores = loss.scores(point)
    gradient = loss.gradient(loss.residual(scores), point, 0.1)
    step, there, _ = search(loss, State(point, History(point), gradient), 0.1, gradient, scores)
    assert step == 0
    assert torch.equal(there, scores)


def test_directions_are_those_of_the_two_loops_written_out() -> None:
    rng, size = np.random.default_rng(3), 9
    matrix = rng.normal(size=(size, size))
    hessian = matrix @ matrix.T + np.eye(size)
    history, pairs = History(torch.zeros(size, dtype=torch.float64)), []
    for _ in range(MEMORY + 4):  # the oldest ones are forgotten
        step = rng.normal(size=size)
        pairs = [*pairs, (step, hessian @ step)][-MEMORY:]
        history.add(*(torch.from_numpy(part) for part in pairs[-1]))
        gradient = rng.normal(size=size)
        expected, shares = gradient.copy(), []
        for s, y in reversed(pairs):
            shares.append(s @ expected / (s @ y))
            expected = expected - shares[-1] * y
        s, y = pairs[-1]
        expected = expected * (s @ y) / (y @ y)
        for (s, y), share in zip(pairs, reversed(shares), strict=True):
            expected = expected + (share - y @ expected / (s @ y)) * s
        found = history.direction(torch.from_numpy(gradient))
        np.testing.assert_allclose(found, -expected, rtol=1e-8, atol=1e-10)


def test_a_pair_without_curvature_is_not_remembered() -> None:
    history = History(torch.zeros(3, dtype=torch.float64))
    one = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    history.add(one, -one)
    assert torch.equal(history.direction(one), -one)
    history.add(one, 2 * one)
    kept = history.direction(one)
    history.add(one, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(history.direction(one), kept)
