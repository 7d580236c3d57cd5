"""Verdicts on the claims of reports/spec/claims.yaml, by the first rule that applies.

1 invalid: the file is not the one that the runs recorded (the audit adds every blocking finding).
2 not run: a number is missing, fewer than three seeds, or a reduced profile.
3 reproduced: the one-sided lower bound of the difference reaches the margin.
4 not reproduced: its upper bound does not, or the mean is more than the tolerance below it.
5 within tolerance: everything else.
"""

import math
from collections.abc import Iterator

from clsp.config.claims import AtMost, BestOfMany, Claims, Difference, HoldsOnSeveral
from clsp.report.contest import Contender, Contest, fits, seeds_of
from clsp.report.statistics import (
    Estimate,
    binomial_error,
    bootstrap_difference,
    holm,
    mean_and_std,
    paired,
    power,
    prediction_halfwidth,
    welch,
)
from clsp.report.suite_claims import judge_best, judge_limit, judge_several
from clsp.report.verdict import NOT_REPRODUCED, REPRODUCED, WITHIN, Lock, Record, rounded, settle


def decide(found: Estimate, margin: float, tau: float, strict: bool, level: float) -> str:
    """The verdict on a difference that may be judged."""
    lower, upper = found.lower(level), found.upper(level)
    if lower > margin or (lower == margin and not strict):
        return REPRODUCED
    if upper < margin or found.value < margin - tau:
        return NOT_REPRODUCED
    return WITHIN


def direction(found: Estimate, level: float) -> str:
    """The effect without any margin, by the sign of the two-sided interval."""
    low, high = found.interval(level)
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def _published(claim: Difference, left: Contender, values: list[float]) -> list[Record]:
    """What public numbers say of the same, and how ours stand beside them."""
    mean, _ = mean_and_std(values)
    reach = prediction_halfwidth(values)
    return [
        {
            **entry.canonical(),
            "left_consistent": None if reach is None else abs(mean - entry.left) <= reach,
            "ours_minus_published_right": None if mean is None else mean - entry.right,
        }
        for entry in claim.published
        if (entry.dataset, entry.method) == (left.kind, left.plugin)
    ]


def _numbers(claim: Difference, left: list[float], right: list[float], tau: float) -> Record:
    level, paired_test = claim.test.level, claim.test.kind == "paired_t"
    found = (paired if paired_test else welch)(left, right)
    low, high = found.interval(level)
    return {
        "difference": found.value,
        "lower": found.lower(level),
        "upper": found.upper(level),
        "low": low,
        "high": high,
        "p": found.p_above(claim.margin),
        "direction": direction(found, level),
        "bootstrap": list(bootstrap_difference(left, right, paired_test)),
        "power": [power(excess, found.n, level) for excess in (1, 2, 3)],
        "indicative": decide(found, claim.margin, tau, claim.relation == ">", level),
    }


def _image_error(means: list[float | None], totals: set[int | None]) -> float | None:
    """Standard error of a difference from the finite test set, as if each side had one of its own.

    That is an upper bound, because the sides share their images; the audit has the paired one.
    """
    (images,) = totals if len(totals) == 1 else (None,)
    if images is None:
        return None
    return math.hypot(*(binomial_error(mean, images) for mean in means if mean is not None))


UNKNOWN: Record = dict.fromkeys(
    (
        *("difference", "lower", "upper", "low", "high", "p", "direction", "bootstrap", "power"),
        "indicative",
    )
)


def _judge_pair(
    contest: Contest,
    claim: Difference,
    minimum: int,
    sides: tuple[Contender, Contender],
    lock: Lock,
) -> Record:
    values: dict[int, tuple[float | None, ...]] = {}
    for seed in claim.seeds:
        runs = [side.runs.get(seed) for side in sides]
        values[seed] = tuple(r and contest.value(r, r.judged_on, claim.number) for r in runs)
    there = {seed: None not in pair for seed, pair in values.items()}
    seeds = seeds_of(claim.seeds, sides, there)
    used = [seed for seed in seeds.used if there[seed]]
    left, right = ([values[seed][i] for seed in used] for i in (0, 1))
    runs = [[side.runs[seed].slug for seed in used] for side in sides]
    tau = claim.tau(sides[0].kind)
    why = seeds.skipped
    if seeds.missing:
        why = f"{len(seeds.missing)} of {len(seeds.used)} seeds are missing"
    elif not why and len(used) < minimum:
        why = f"n = {len(used)}"
    numbers = _numbers(claim, left, right, tau) if len(used) > 1 else UNKNOWN
    task = next(iter(sides[0].runs.values())).judged_on
    totals = {contest.images(side.runs[s], task, claim.number) for side in sides for s in used}
    means = [mean_and_std(side)[0] for side in (left, right)]
    record = {
        "dataset": sides[0].dataset,
        "encoder": sides[0].encoder,
        "left": sides[0].label,
        "right": sides[1].label,
        "task": task,
        **claim.number.canonical(),
        "relation": claim.relation,
        "margin": claim.margin,
        "tau": tau,
        "test": claim.test.kind,
        "level": claim.test.level,
        "seeds": used,
        "n": len(used),
        "left_runs": runs[0],
        "right_runs": runs[1],
        "left_mean": means[0],
        "right_mean": means[1],
        **numbers,
        "image_error": _image_error(means, totals),
        "published": _published(claim, sides[0], left),
    }
    return settle(record, contest.params.demonstration, lock(runs[0] + runs[1]), why)


def judge_difference(
    contest: Contest, claim: Difference, minimum: int, lock: Lock
) -> Iterator[Record]:
    """One record per left row and right row on the same dataset and encoder."""
    for rows in contest.places(claim.where):
        for left in rows:
            for right in rows:
                own = not claim.own_method or left.method == right.method
                met = fits(left, claim.left) and fits(right, claim.right) and own
                if met and left is not right:
                    yield _judge_pair(contest, claim, minimum, (left, right), lock)


def judge_claims(contest: Contest, claims: Claims, lock: Lock) -> list[Record]:
    """Every verdict, in the order of the file; a claim that no run is about has one too.

    Args:
        contest: Rows and numbers of a profile.
        claims: The claims file.
        lock: Given names of runs, why the file cannot judge them, or nothing.
    """
    minimum, records = claims.minimum_seeds, []
    for claim in claims.claims:
        match claim:
            case Difference():
                found = [*judge_difference(contest, claim, minimum, lock)]
            case BestOfMany():
                found = [*judge_best(contest, claim, minimum, lock)]
            case HoldsOnSeveral():
                based = next(c for c in claims.claims if c.id == claim.claim)
                everywhere = based.where.model_copy(update={"dataset": claim.among})
                wider = based.model_copy(update={"where": everywhere})
                found = judge_several(
                    contest, claim, [*judge_difference(contest, wider, minimum, lock)]
                )
            case AtMost():
                found = [*judge_limit(contest, claim)]
        if not found:
            found = [settle({"indicative": None}, False, "", "no run of this profile is about it")]
        about = {"id": claim.id, "text": claim.text, "kind": claim.kind}
        records += [{**about, **record} for record in found]
    tested = [record for record in records if record.get("p") is not None]
    for record, p in zip(tested, holm([record["p"] for record in tested]), strict=True):
        record["p_holm"] = p
    return [rounded(record) for record in records]
