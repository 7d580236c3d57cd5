"""Claims about several datasets at once, and about the quality of a bank."""

from collections.abc import Iterator

import numpy as np

from clsp.config.claims import AtMost, BestOfMany, HoldsOnSeveral
from clsp.config.measured import measured_banks
from clsp.config.quality import PROTOCOL
from clsp.report.contest import Contender, Contest, fits, seeds_of
from clsp.report.statistics import (
    interquartile_mean,
    probability_of_improvement,
    resampled_wins,
    stratified_bootstrap,
    wins,
)
from clsp.report.verdict import (
    INVALID,
    NOT_REPRODUCED,
    REPRODUCED,
    WITHIN,
    Lock,
    Record,
    settle,
)


def _scores(
    contest: Contest, claim: BestOfMany, row: Contender, seeds: list[int], tasks: list[str]
) -> np.ndarray:
    """Numbers of a row, (seeds, tasks)."""
    found = [
        [contest.value(row.runs[seed], task, claim.number) for task in tasks] for seed in seeds
    ]
    return np.array(found, dtype=np.float64)


def _summary(scores: dict[str, np.ndarray], left: str) -> list[Record]:
    """Mean and interquartile mean over datasets, mean rank, and P(left > row) of every row."""
    means = np.array([s.mean(axis=0) for s in scores.values()])  # (rows, tasks)
    ranks = (
        1
        + (means[:, None] < means[None]).sum(axis=1)
        + ((means[:, None] == means[None]).sum(axis=1) - 1) / 2
    )
    rows = []
    for place, (label, of) in enumerate(scores.items()):
        low, high = stratified_bootstrap(of, interquartile_mean, np.random.default_rng(0), 1000)
        rows.append(
            {
                "label": label,
                "mean": float(of.mean()),
                "iqm": interquartile_mean(of),
                "iqm_low": low,
                "iqm_high": high,
                "mean_rank": float(ranks[place].mean()),
                "left_exceeds": probability_of_improvement(scores[left], of)
                if label != left
                else None,
            }
        )
    return rows


def _decide(won: int, bounds: tuple[float, float], at_least: int) -> str:
    if bounds[0] >= at_least:
        return REPRODUCED
    if bounds[1] < at_least or won < at_least:
        return NOT_REPRODUCED
    return WITHIN


def judge_best(contest: Contest, claim: BestOfMany, minimum: int, lock: Lock) -> Iterator[Record]:
    """One record per left row: on how many datasets its mean exceeds those of all right rows."""
    judged = contest.params.evaluation.transfer
    tasks = list(judged.datasets) if judged else []
    for rows in contest.places(claim.where):
        others = [row for row in rows if fits(row, claim.right)]
        for left in (row for row in rows if fits(row, claim.left)):
            if tasks and others:
                yield _judge_row(contest, claim, minimum, left, others, tasks, lock)


def _judge_row(
    contest: Contest,
    claim: BestOfMany,
    minimum: int,
    left: Contender,
    others: list[Contender],
    tasks: list[str],
    lock: Lock,
) -> Record:
    rows = [left, *others]
    there = {
        seed: all(
            seed in row.runs and contest.value(row.runs[seed], task, claim.number) is not None
            for row in rows
            for task in tasks
        )
        for seed in claim.seeds
    }
    seeds = seeds_of(claim.seeds, rows, there)
    used = [seed for seed in seeds.used if there[seed]]
    runs = [row.runs[seed].slug for row in rows for seed in used]
    why = seeds.skipped
    if seeds.missing:
        why = f"{len(seeds.missing)} of {len(seeds.used)} seeds are missing"
    elif not why and len(used) < minimum:
        why = f"n = {len(used)}"
    elif not why and len(tasks) != claim.among:
        why = f"{len(tasks)} datasets instead of {claim.among}"
    numbers: Record = dict.fromkeys(("won", "lower", "upper", "indicative", "summary"))
    if used:
        scores = {row.label: _scores(contest, claim, row, used, tasks) for row in rows}
        mine, theirs = scores[left.label], [scores[row.label] for row in others]
        drawn = resampled_wins(mine, theirs, np.random.default_rng(0))
        low, high = (float(np.quantile(drawn, q, method="lower")) for q in (0.05, 0.95))
        won = wins(mine, theirs)
        verdict = _decide(won, (low, high), claim.at_least) if len(used) > 1 else None
        numbers = {"won": won, "lower": low, "upper": high, "indicative": verdict}
        numbers["summary"] = _summary(scores, left.label)
    record = {
        "dataset": left.dataset,
        "encoder": left.encoder,
        "left": left.label,
        "right": "every other row without extra positives",
        "at_least": claim.at_least,
        "among": claim.among,
        "tasks": tasks,
        "rows": [row.label for row in rows],
        "seeds": used,
        "n": len(used),
        "runs": runs,
        **claim.number.canonical(),
        **numbers,
    }
    return settle(record, contest.params.demonstration, lock(runs), why)


def judge_several(contest: Contest, claim: HoldsOnSeveral, found: list[Record]) -> list[Record]:
    """One record: on how many datasets all flavours of the proposition are reproduced."""
    kinds: dict[str, list[Record]] = {}
    for record in found:
        kinds.setdefault(contest.params.datasets[record["dataset"]].kind, []).append(record)
    if not kinds:
        return []
    verdicts = {kind: {r["verdict"] for r in records} for kind, records in kinds.items()}
    held = [k for k, seen in verdicts.items() if seen == {REPRODUCED}]
    hopeless = [k for k, seen in verdicts.items() if NOT_REPRODUCED in seen]
    record = {
        "claim": claim.claim,
        "at_least": claim.at_least,
        "among": list(claim.among),
        "judged": {kind: sorted(seen) for kind, seen in verdicts.items()},
        "won": len(held),
        "indicative": None,
    }
    invalid = any(INVALID in seen for seen in verdicts.values())
    why = f"decided on {len(held) + len(hopeless)} of {len(claim.among)} datasets"
    if len(held) >= claim.at_least:
        record["indicative"], why = REPRODUCED, ""
    elif len(claim.among) - len(hopeless) < claim.at_least:
        record["indicative"], why = NOT_REPRODUCED, ""
    locked = f"{claim.claim} is invalid" if invalid else ""
    return [settle(record, contest.params.demonstration, locked, why)]


def judge_limit(contest: Contest, claim: AtMost) -> Iterator[Record]:
    """One record per measured bank of the generator; a single value is only indicative."""
    frame, params = contest.frame, contest.params
    for name in measured_banks(params):
        bank = params.banks[name]
        kind = params.datasets[bank.dataset].kind
        if bank.generator != claim.generator or kind not in claim.limit:
            continue
        rows = frame[(frame["run"] == name) & (frame["protocol"] == PROTOCOL)]
        rows = rows[(rows["metric"] == claim.metric) & (rows["status"] == "done")]
        told = [str(text) for text in rows["images"]] if "images" in rows else []
        same = [text.startswith(f"{claim.images} candidates") for text in told]
        chosen = same.index(True) if True in same else 0
        value = float(rows["value"].iloc[chosen]) if len(rows) else None
        limit, tau = claim.limit[kind], claim.tolerance.tau
        why = "n = 0" if value is None else "n = 1"
        if value is not None and True not in same:
            why = f"n = 1, and images: {told[chosen] if told else 'unknown'}"
        verdict = None
        if value is not None:
            within = WITHIN if value <= limit + tau else NOT_REPRODUCED
            verdict = REPRODUCED if value <= limit else within
        record = {
            "dataset": bank.dataset,
            "left": name,
            "metric": claim.metric,
            "limit": limit,
            "tau": tau,
            "value": value,
            "n": int(value is not None),
            "source": claim.source,
            "indicative": verdict,
        }
        yield settle(record, params.demonstration, "", why)
