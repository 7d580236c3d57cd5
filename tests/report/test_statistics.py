"""Statistics against closed forms, published tables and simulation; the audit's against the report's."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest

from clsp.audit import inference
from clsp.report import statistics as s

VALUES = [94.1, 94.6, 94.3, 94.9, 94.4]
OTHERS = [93.0, 93.9, 93.1, 93.6, 93.4]


def test_t_interval_is_the_textbook_s() -> None:
    """t(0.975, 4) = 2.7764 of any table; five values."""
    low, high = s.t_interval(VALUES)
    reach = 2.776445 * np.std(VALUES, ddof=1) / math.sqrt(5)
    assert (low, high) == pytest.approx((94.46 - reach, 94.46 + reach), abs=1e-6)
    assert s.t_interval([94.0]) is None


def test_quantiles_with_one_and_two_degrees_of_freedom_have_closed_forms() -> None:
    cauchy = math.tan(math.pi * (0.975 - 0.5))
    two = (2 * 0.975 - 1) / math.sqrt(2 * 0.975 * 0.025)
    for freedom, known in ((1, cauchy), (2, two)):
        assert s.Estimate(0, 1, freedom, 2, "single").interval()[1] == pytest.approx(known)
        assert inference.t_quantile(0.975, freedom) == pytest.approx(known)


def test_half_widths_in_standard_deviations() -> None:
    """2.48 sd at n = 3, 1.24 at 5, 0.72 at 10."""
    for n, known in ((3, 2.48), (5, 1.24), (10, 0.72)):
        values = np.concatenate([[-1, 1], np.zeros(n - 2)])
        low, high = s.t_interval((values / values.std(ddof=1)).tolist())
        assert (high - low) / 2 == pytest.approx(known, abs=0.005)


@pytest.mark.parametrize(
    ("n", "known"), [(3, (0.32, 0.71, 0.93)), (5, (0.59, 0.97, 1.0)), (10, (0.90, 1.0, 1.0))]
)
def test_power_when_the_truth_exceeds_the_margin(n: int, known: tuple[float, ...]) -> None:
    """Of "lower bound reaches the margin", the truth 1, 2 and 3 standard deviations above it."""
    for excess, expected in enumerate(known, start=1):
        assert s.power(excess, n) == pytest.approx(expected, abs=0.011)
        assert inference.power(excess, n, 0.95) == pytest.approx(s.power(excess, n), abs=1e-10)


def test_power_is_the_level_where_the_truth_is_the_margin() -> None:
    assert s.power(0, 5) == pytest.approx(0.05)


def test_power_by_simulation() -> None:
    drawn = np.random.default_rng(0).normal(1.5, 1, (20000, 4))
    lower = drawn.mean(1) - 2.353363 * drawn.std(1, ddof=1) / 2  # t(0.95, 3)
    assert s.power(1.5, 4) == pytest.approx(np.mean(lower >= 0), abs=0.01)


def test_pairing_removes_what_seeds_share() -> None:
    paired, welch = s.paired(VALUES, OTHERS), s.welch(VALUES, OTHERS)
    assert paired.value == pytest.approx(welch.value)
    assert paired.error < welch.error
    assert paired.freedom == 4 and 7 < welch.freedom <= 8


def test_welch_with_equal_spreads_and_sizes_is_student_s() -> None:
    found = s.welch([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert (found.value, found.freedom) == (-3.0, pytest.approx(4))
    assert found.error == pytest.approx(math.sqrt(2 / 3))


def test_one_sided_test_and_bound_agree() -> None:
    found = s.paired(VALUES, OTHERS)
    assert found.p_above(found.lower()) == pytest.approx(0.05)
    assert found.p_above(found.value) == pytest.approx(0.5)


def test_equal_differences_have_no_error() -> None:
    found = s.paired([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    assert (found.lower(), found.upper(), found.p_above(0), found.p_above(1)) == (1, 1, 0, 1)
    assert s.paired([1.0, 2.0], [1.0, 2.0]).p_different() == 1


def test_prediction_interval_of_one_published_value() -> None:
    half = s.prediction_halfwidth(VALUES)
    assert half == pytest.approx(2.776445 * np.std(VALUES, ddof=1) * math.sqrt(1.2), abs=1e-5)
    assert s.prediction_halfwidth([1.0]) is None


def test_holm_of_a_worked_example() -> None:
    given = [0.01, 0.04, 0.03, 0.005]
    assert s.holm(given) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert inference.holm(given) == pytest.approx(s.holm(given))
    assert s.holm([]) == inference.holm([]) == []


def test_interquartile_mean() -> None:
    assert s.interquartile_mean(np.arange(8.0)) == pytest.approx(3.5)
    assert s.interquartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 1000.0])) == pytest.approx(2.0)
    assert s.interquartile_mean(np.array([5.0])) == 5


def test_bootstrap_takes_its_chance_from_the_generator_alone() -> None:
    scores = np.random.default_rng(1).normal(size=(5, 8))
    np.random.seed(0)
    first = s.stratified_bootstrap(scores, np.mean, np.random.default_rng(2), 200)
    np.random.seed(1)
    assert s.stratified_bootstrap(scores, np.mean, np.random.default_rng(2), 200) == first
    assert s.stratified_bootstrap(scores, np.mean, np.random.default_rng(3), 200) != first
    assert first[0] < scores.mean() < first[1]


def test_bootstrap_stays_within_every_dataset() -> None:
    scores = np.tile(np.arange(4.0), (3, 1))  # seeds agree, datasets do not
    assert s.stratified_bootstrap(scores, np.mean, np.random.default_rng(0), 50) == (1.5, 1.5)


@pytest.mark.parametrize(("n", "known"), [(3, 0.75), (5, 0.83), (10, 0.90)])
def test_a_percentile_bootstrap_covers_too_little_and_t_what_it_says(n: int, known: float) -> None:
    """Why bootstraps over few seeds are shown and decide nothing."""
    generator = np.random.default_rng(0)
    covered = {"t": 0, "bootstrap": 0}
    for values in generator.normal(size=(1500, n)):
        low, high = s.t_interval(values.tolist())
        covered["t"] += low <= 0 <= high
        means = values[generator.integers(0, n, (400, n))].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        covered["bootstrap"] += low <= 0 <= high
    assert covered["t"] / 1500 == pytest.approx(0.95, abs=0.02)
    assert covered["bootstrap"] / 1500 == pytest.approx(known, abs=0.035)


def test_wins_count_no_ties() -> None:
    left = np.array([[1.0, 2.0, 3.0]])
    assert s.wins(left, [np.array([[1.0, 1.0, 1.0]]), np.array([[0.0, 2.0, 2.0]])]) == 1
    drawn = s.resampled_wins(left, [left - 1], np.random.default_rng(0), 20)
    assert drawn.tolist() == [3] * 20
    assert s.probability_of_improvement(left, left) == 0.5


def test_mean_ranks_share_ties() -> None:
    ranks = inference.mean_ranks({"a": [1.0, 5.0], "b": [1.0, 4.0], "c": [0.0, 6.0]})
    assert ranks == {"a": 1.75, "b": 2.25, "c": 2.0}


def test_the_binomial_error_of_published_accuracies() -> None:
    found = [s.binomial_error(percent, 10_000) for percent in (94.45, 72.41, 0.0, 100.0)]
    assert found == pytest.approx([0.23, 0.45, 0, 0], abs=0.005)  # audit.md 3.2


def test_a_bootstrap_of_a_difference_pairs_seeds() -> None:
    left, right = [90.0, 80.0, 70.0], [89.0, 79.0, 69.0]  # one point apart on every seed
    assert s.bootstrap_difference(left, right, True) == (1.0, 1.0)
    low, high = s.bootstrap_difference(left, right, False)
    assert low < -5 and high > 5
    for pairing in (True, False):
        ours = s.bootstrap_difference(left, right[::-1], pairing)
        assert inference.bootstrap(left, right[::-1], pairing) == pytest.approx(list(ours))


@pytest.mark.parametrize("seed", range(5))
def test_the_audit_finds_the_same_by_another_way(seed: int) -> None:
    generator = np.random.default_rng(seed)
    left, right = (generator.normal(90, 1, 3 + seed).tolist() for _ in range(2))
    for pairing, ours in ((True, s.paired(left, right)), (False, s.welch(left, right))):
        theirs = inference.difference(left, right, pairing)
        assert theirs == pytest.approx((ours.value, ours.error, ours.freedom))
        assert inference.bound(theirs, 0.05) == pytest.approx(ours.lower())
        assert inference.p_above(theirs, 0.3) == pytest.approx(ours.p_above(0.3))
        assert inference.p_different(theirs) == pytest.approx(ours.p_different())


def test_the_audit_s_statistics_import_nothing_of_the_suite_nor_scipy() -> None:
    tree = ast.parse(Path(inference.__file__).read_text())
    named = [n.module if isinstance(n, ast.ImportFrom) else n.names[0].name
             for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]  # fmt: skip
    assert set(named) == {"math", "collections.abc", "numpy"}
