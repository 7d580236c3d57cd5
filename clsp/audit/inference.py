"""Statistics over seeds by a second path: numpy and the standard library, nothing of the suite.

Student's t comes from the continued fraction of the incomplete beta function, its noncentral form
from an integral; the report takes both from scipy.
"""

import math
from collections.abc import Sequence

import numpy as np

Row = dict[str, float]  # values by seed
RANKED = 9  # decimals of a percentage that decide a rank; beyond them is rounding


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Continued fraction of the incomplete beta function (Lentz's method)."""
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    total = d
    for m in range(1, 500):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + step * d or tiny)
            c = 1 + step / c or tiny
            total *= d * c
        if abs(d * c - 1) < 1e-16:
            break
    return total


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function, for x from 0 to 1."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, 1 - x) / b


def t_tail(t: float, freedom: float) -> float:
    """P(T > t) of Student's t."""
    half = incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2
    return half if t >= 0 else 1 - half


def t_quantile(probability: float, freedom: float) -> float:
    """The t below which a probability lies, by bisection."""
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > 1 - probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if t_tail(middle, freedom) > 1 - probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def power(excess: float, n: int, level: float) -> float:
    """P(noncentral t exceeds the central quantile), by integration over the deviation's spread."""
    freedom, limit = n - 1, t_quantile(level, n - 1)
    points, weights = np.polynomial.legendre.leggauss(400)
    ratio = 2.5 * (points + 1)  # of the sample's standard deviation to the true one, 0 to 5
    log_density = (
        math.log(2) + freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)
        + (freedom - 1) * np.log(ratio) - freedom * ratio**2 / 2
    )  # fmt: skip
    above = [
        0.5 * math.erfc((limit * r - excess * math.sqrt(n)) / math.sqrt(2)) for r in ratio.tolist()
    ]
    return float(2.5 * np.sum(weights * np.exp(log_density) * np.array(above)))


def moments(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, standard error and degrees of freedom of at least two values."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array))), len(array) - 1


def difference(
    left: Sequence[float], right: Sequence[float], paired: bool
) -> tuple[float, float, float]:
    """Difference of two means with its standard error and degrees of freedom."""
    if paired:
        return moments(np.subtract(left, right))
    (a, e, f), (b, g, h) = moments(left), moments(right)
    spread = e**4 / f + g**4 / h
    return a - b, math.hypot(e, g), (e * e + g * g) ** 2 / spread if spread else f + h


def bound(found: tuple[float, float, float], probability: float) -> float:
    """The mean or difference moved by so many standard errors as a quantile says."""
    value, error, freedom = found
    return value + t_quantile(probability, freedom) * error if error else value


def p_above(found: tuple[float, float, float], margin: float) -> float:
    """P-value of the one-sided test whose null hypothesis is "at most the margin"."""
    value, error, freedom = found
    if error == 0:
        return 0.0 if value > margin else 1.0
    return t_tail((value - margin) / error, freedom)


def p_different(found: tuple[float, float, float]) -> float:
    """P-value of the two-sided test whose null hypothesis is "zero"."""
    value, error, freedom = found
    if error == 0:
        return 0.0 if value else 1.0
    return 2 * t_tail(abs(value) / error, freedom)


def indistinct(best: Row, other: Row, least: int = 3, level: float = 0.05) -> bool:
    """Whether two rows of a column are not told apart: by common seeds, else by all of them."""
    shared = best.keys() & other.keys()
    if len(shared) >= least:
        pairs = [(best[seed], other[seed]) for seed in shared]
        found = difference([a for a, _ in pairs], [b for _, b in pairs], True)
    elif min(len(best), len(other)) >= least:
        found = difference(list(best.values()), list(other.values()), False)
    else:
        return False
    return p_different(found) >= level


def bootstrap(
    left: Sequence[float], right: Sequence[float], paired: bool, level: float = 0.95
) -> list[float]:
    """Ends of the percentile interval of a difference over 2000 resamples of seeds."""
    generator = np.random.default_rng(0)
    one = generator.integers(0, len(left), (2000, len(left)))
    two = one if paired else generator.integers(0, len(right), (2000, len(right)))
    drawn = np.mean(np.take(left, one), axis=1) - np.mean(np.take(right, two), axis=1)
    return [float(np.quantile(drawn, (1 + sign * level) / 2)) for sign in (-1, 1)]


def finite_error(means: Sequence[float], images: int) -> float:
    """Standard error of a difference of accuracies (percent) if images were drawn for each."""
    return math.sqrt(sum(mean * (100 - mean) for mean in means) / images)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: each the largest of what it and all smaller ones are raised to."""
    array = np.asarray(p_values, dtype=np.float64)
    if not array.size:
        return []
    order = np.argsort(array, kind="stable")
    raised = np.minimum(1.0, array[order] * np.arange(array.size, 0, -1))
    adjusted = np.empty(array.size)
    adjusted[order] = np.maximum.accumulate(raised)
    return adjusted.tolist()


def mean_ranks(scores: dict[str, list[float]]) -> dict[str, float]:
    """Mean rank of each row over its columns: 1 is the highest, equal values share their ranks."""
    names = list(scores)
    table = np.array([scores[name] for name in names], dtype=np.float64).round(RANKED)
    higher = (table[None, :, :] > table[:, None, :]).sum(axis=1)
    equal = (table[None, :, :] == table[:, None, :]).sum(axis=1)
    ranks = (higher + (equal + 1) / 2).mean(axis=1)
    return dict(zip(names, ranks.tolist(), strict=True))
