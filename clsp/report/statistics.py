"""Statistics over seeds: intervals, tests, power, and summaries over datasets (audit.md 3.2).

The audit has its own code for all of it (clsp/audit/inference.py), which shares nothing with this.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
MINIMUM = 3  # seeds, below which nothing is tested
DIGITS = 10  # of everything written: more than is printed, fewer than machines may differ in


def _special() -> Any:
    """scipy.special, imported when it is needed: the audit and the page only read names here."""
    from scipy import special

    return special


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two, with its standard error.

    Attributes:
        value: The mean or difference.
        error: Standard error; 0 where nothing varies.
        freedom: Degrees of freedom.
        n: Seeds behind it; of two unpaired samples the smaller number.
        kind: "paired", "welch" or "single".
    """

    value: float
    error: float
    freedom: float
    n: int
    kind: str

    def lower(self, level: float = LEVEL) -> float:
        """One-sided lower confidence bound."""
        return self.value - self._quantile(level) * self.error

    def upper(self, level: float = LEVEL) -> float:
        """One-sided upper confidence bound."""
        return self.value + self._quantile(level) * self.error

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Two-sided confidence interval."""
        reach = self._quantile((1 + level) / 2) * self.error
        return self.value - reach, self.value + reach

    def p_above(self, margin: float = 0.0) -> float:
        """P-value of the one-sided test whose null hypothesis is "at most the margin"."""
        gap = self.value - margin
        if self.error == 0:
            return 0.0 if gap > 0 else 1.0
        return float(_special().stdtr(self.freedom, -gap / self.error))

    def p_different(self) -> float:
        """P-value of the two-sided test whose null hypothesis is "zero"."""
        if self.error == 0:
            return 0.0 if self.value != 0 else 1.0
        return 2 * float(_special().stdtr(self.freedom, -abs(self.value) / self.error))

    def _quantile(self, probability: float) -> float:
        return float(_special().stdtrit(self.freedom, probability)) if self.error else 0.0


def mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1); None where too few values make them undefined."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def single(values: Sequence[float], kind: str = "single") -> Estimate:
    """The mean of at least two values.

    Raises:
        ValueError: If there are fewer.
    """
    mean, std = mean_and_std(values)
    if mean is None or std is None:
        raise ValueError(f"a standard error needs two values, found {len(values)}")
    return Estimate(mean, std / math.sqrt(len(values)), len(values) - 1, len(values), kind)


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Two-sided t-interval of a mean; None below two values."""
    return single(values).interval(level) if len(values) > 1 else None


def binomial_error(percent: float, images: int) -> float:
    """Standard error of an accuracy from the finite number of test images, points.

    Args:
        percent: Accuracy, 0 to 100.
        images: At least 1.
    """
    return math.sqrt(max(0.0, percent * (100 - percent)) / images)


def paired(left: Sequence[float], right: Sequence[float]) -> Estimate:
    """Mean of the differences left - right, seed by seed.

    Raises:
        ValueError: If lengths differ or are below two.
    """
    return single([a - b for a, b in zip(left, right, strict=True)], "paired")


def welch(left: Sequence[float], right: Sequence[float]) -> Estimate:
    """Difference of means of samples with variances of their own (Welch-Satterthwaite).

    Raises:
        ValueError: If one has fewer than two values.
    """
    a, b = single(left), single(right)
    error = math.hypot(a.error, b.error)
    spread = a.error**4 / a.freedom + b.error**4 / b.freedom
    freedom = error**4 / spread if spread else float(a.freedom + b.freedom)
    return Estimate(a.value - b.value, error, freedom, min(a.n, b.n), "welch")


def power(excess: float, n: int, level: float = LEVEL) -> float:
    """Probability that the lower bound reaches the margin.

    Args:
        excess: By how much the true difference exceeds the margin, in standard deviations of the
            per-seed differences.
        n: Seeds, at least 2.
        level: Of the one-sided bound.
    """
    limit = _special().stdtrit(n - 1, level)
    return float(1 - _special().nctdtr(n - 1, excess * math.sqrt(n), limit))


def prediction_halfwidth(values: Sequence[float], level: float = LEVEL) -> float | None:
    """How far one further value may be from the mean of these; None below two values.

    A single published value is consistent with ours if it is no farther.
    """
    _, std = mean_and_std(values)
    if std is None:
        return None
    n = len(values)
    return float(_special().stdtrit(n - 1, (1 + level) / 2)) * std * math.sqrt(1 + 1 / n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of a family of tests, in the order given (Holm's step-down rule)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of the middle half of all values; those at the edges count with their share."""
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    n = len(ordered)
    places = np.arange(n)
    weights = np.clip(np.minimum(places + 1, 0.75 * n) - np.maximum(places, 0.25 * n), 0, None)
    return float(weights @ ordered / weights.sum())


def stratified_bootstrap(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], float],
    generator: np.random.Generator,
    draws: int = 2000,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Percentile interval of a statistic, seeds drawn anew within every dataset.

    Args:
        scores: (seeds, datasets).
        statistic: Of an array of that shape.
        generator: The only source of chance.
        draws: Resamples.
        level: Two-sided.

    Returns:
        Lower and upper end. With fewer than ten seeds it is shown and decides nothing: at n = 5 a
        nominal 95 % covers 83 % (audit.md 3.2).
    """
    rows = generator.integers(0, len(scores), (draws, *scores.shape))
    found = [statistic(np.take_along_axis(scores, drawn, axis=0)) for drawn in rows]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_difference(
    left: Sequence[float],
    right: Sequence[float],
    paired: bool,
    draws: int = 2000,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Percentile interval of a difference of means, seeds drawn anew; shown, decides nothing.

    Args:
        left: One value per seed.
        right: The same; of the same seeds if `paired`.
        paired: Whether seeds are drawn for both sides together.
        draws: Resamples, from a generator of their own that starts at 0.
        level: Two-sided.
    """
    generator = np.random.default_rng(0)
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    rows = generator.integers(0, len(a), (draws, len(a)))
    others = rows if paired else generator.integers(0, len(b), (draws, len(b)))
    means = a[rows].mean(axis=1) - b[others].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def probability_of_improvement(left: np.ndarray, right: np.ndarray) -> float:
    """P(A > B): a value of one drawn at random exceeds one of the other; ties count half.

    Args:
        left: (seeds, datasets).
        right: (other seeds, datasets).

    Returns:
        Mean over datasets, 0 to 1.
    """
    gaps = left[:, None, :] - right[None, :, :]
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


def wins(left: np.ndarray, others: Sequence[np.ndarray]) -> int:
    """Datasets on which one mean exceeds the largest mean of all others; ties count against it.

    Args:
        left: (seeds, datasets).
        others: The same of every other row; the number of seeds may differ.
    """
    largest = np.max([np.mean(scores, axis=0) for scores in others], axis=0)
    return int(np.sum(np.mean(left, axis=0) > largest))


def resampled_wins(
    left: np.ndarray,
    others: Sequence[np.ndarray],
    generator: np.random.Generator,
    draws: int = 2000,
) -> np.ndarray:
    """`wins` with the seeds of every row drawn anew, (draws,)."""

    def means(scores: np.ndarray) -> np.ndarray:
        rows = generator.integers(0, len(scores), (draws, len(scores)))
        return scores[rows].mean(axis=1)  # (draws, datasets)

    mine = means(left)
    largest = np.max([means(scores) for scores in others], axis=0)
    return np.sum(mine > largest, axis=1)
