"""Verdicts on claims follow from the recomputed numbers, by the claims that the runs recorded.

The claims file is the auditor's own copy. A run that recorded another one, or none, when it started
cannot be judged by it: margins, seeds and tests have to be fixed before the numbers are known.
"""

from collections.abc import Iterator
from typing import Any

from clsp.audit import inference
from clsp.audit.checks.a26_statistics import recomputed
from clsp.audit.claims import CHECK, FILES, WHOLE, claims_file, numbers_behind, rendered
from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.suite import Suite
from clsp.runtime.canonical import read_json, sha256_file
from clsp.runtime.errors import ClspError

ID = CHECK
SEVERITY = BLOCKING
TOLERANCE = 1e-7

Record = dict[str, Any]
Problem = tuple[str, str]  # expected, found


def _files(suite: Suite, texts: dict[str, str]) -> Iterator[Finding]:
    """Files of the verdicts that differ from what the manifests give."""
    for flag, name in FILES.items():
        path = suite.reports / name
        try:
            found = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            found = f"cannot be read: {error}"
        if found != texts[flag]:
            expected, found = _first_difference(texts[flag], found)
            told = "the verdicts are not what the manifests give"
            yield Finding(ID, BLOCKING, str(path), expected, found, told, WHOLE)


def _first_difference(expected: str, found: str) -> Problem:
    pairs = enumerate(zip(expected, found, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(expected), len(found)))
    cut = slice(max(0, place - 40), place + 40)
    return f"...{expected[cut]}...", f"...{found[cut]}..."


def _values(runs: list[str], record: Record, truth: dict[Number, float]) -> list[float] | None:
    task, protocol, variant = (record[key] for key in ("task", "protocol", "variant"))
    numbers = [Number(run, task, protocol, variant) for run in runs]
    return [truth[n] for n in numbers] if all(n in truth for n in numbers) else None


def _by_rule(record: Record, found: tuple[float, float, float]) -> str:
    """The verdict that the statistics give, in the order of the rules."""
    lower = inference.bound(found, 1 - record["level"])
    upper, margin = inference.bound(found, record["level"]), record["margin"]
    if lower > margin or (lower == margin and record["relation"] == ">="):
        return "reproduced"
    if upper < margin or found[0] < margin - record["tau"]:
        return "not reproduced"
    return "within tolerance"


def _recomputed(record: Record, left: list[float], right: list[float]) -> Record:
    """Every number of a difference, from the values behind it."""
    found = inference.difference(left, right, record["test"] == "paired_t")
    level = record["level"]
    ends = [inference.bound(found, (1 + sign * level) / 2) for sign in (-1, 1)]
    sign = "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "undecided"
    return {
        "left_mean": sum(left) / len(left),
        "right_mean": sum(right) / len(right),
        "difference": found[0],
        "lower": inference.bound(found, 1 - level),
        "upper": inference.bound(found, level),
        "low": ends[0],
        "high": ends[1],
        "p": inference.p_above(found, record["margin"]),
        "bootstrap": inference.bootstrap(left, right, record["test"] == "paired_t"),
        "power": [inference.power(excess, len(left), level) for excess in (1, 2, 3)],
        "direction": sign,
        "indicative": _by_rule(record, found),
    }


def _image_error(
    suite: Suite, record: Record, left: list[float], right: list[float]
) -> float | None:
    """What a finite test set alone may move a difference by; None beside shares of images."""
    told = [suite.told[number][1] for number in numbers_behind(record)]
    about = {(result["metric"], result["total"]) for result in told}
    if len(about) != 1 or next(iter(about))[0] != "top1":
        return None
    means = [sum(side) / len(side) for side in (left, right)]
    return inference.finite_error(means, next(iter(about))[1])


def _same(expected: Any, found: Any) -> bool:
    if isinstance(expected, list):
        return isinstance(found, list) and all(map(_same, expected, found))
    if isinstance(expected, float):
        good = isinstance(found, int | float)
        return good and abs(expected - found) <= TOLERANCE * max(1.0, abs(expected))
    return expected == found


def _problem(suite: Suite, record: Record) -> Problem | None:
    """What is wrong with the numbers of one difference."""
    truth, task = recomputed(suite), record["task"]
    sides = [_values(record[side], record, truth) for side in ("left_runs", "right_runs")]
    if None in sides:
        return f"numbers on {task} that can be recomputed", "some cannot"
    left, right = sides
    if len(left) != record["n"] or len(right) != record["n"]:
        return f"n = {len(left)} and {len(right)}", f"n = {record['n']}"
    seeds = [suite.runs[run].spec.seed for run in record["left_runs"] if run in suite.runs]
    if seeds != record["seeds"]:
        return f"seeds {seeds}", f"seeds {record['seeds']}"
    for key, expected in (_recomputed(record, left, right) if len(left) > 1 else {}).items():
        if not _same(expected, record[key]):
            return f"{key} {expected}", f"{key} {record[key]}"
    if not _same(error := _image_error(suite, record, left, right), record["image_error"]):
        return f"image_error {error}", f"image_error {record['image_error']}"
    reduced = suite.params.demonstration
    if record["verdict"] not in ("invalid", "not run") and (reduced or len(left) < 3):
        return "not run", record["verdict"]
    if record["verdict"] not in ("invalid", "not run", record["indicative"]):
        return str(record["indicative"]), record["verdict"]
    return None


def _numbers(suite: Suite, path: str) -> Iterator[Finding]:
    """Statistics of the stored verdicts that do not follow from recomputed numbers."""
    try:
        stored = read_json(suite.reports / FILES["verdicts"])
        records = [r for r in stored["verdicts"] if r["kind"] == "difference" and "task" in r]
        problems = [(record["id"], _problem(suite, record)) for record in records]
        tested = [record for record in records if record["p"] is not None]
        raised = inference.holm([record["p"] for record in tested])
        for record, p in zip(tested, raised, strict=True):
            if not _same(p, record["p_holm"]):
                problems.append((record["id"], (f"p_holm {p}", f"p_holm {record['p_holm']}")))
    except (OSError, ValueError, LookupError, TypeError, ClspError) as error:
        problems = [(WHOLE, ("verdicts that can be read", str(error)[:200]))]
    for name, problem in problems:
        if problem:
            told = "the verdict is not what its runs give"
            yield Finding(ID, BLOCKING, path, *problem, told, name)


def _lock(suite: Suite, records: list[Record]) -> Iterator[Finding]:
    """Runs behind some claim that recorded another claims file than the auditor's."""
    sha256 = sha256_file(claims_file(suite))
    recorded = {
        run.slug: (artefact, artefact.predicate["internalParameters"].get("claims_sha256"))
        for run, artefact in suite.trainings
    }
    behind: dict[str, str] = {}
    for record in records:
        for number in numbers_behind(record):
            behind.setdefault(number.run, record["id"])
    for slug, name in sorted(behind.items()):
        artefact, held = recorded.get(slug, (None, None))
        if artefact and held != sha256:
            told = "the claims were written or changed after the run had started"
            yield Finding(
                ID, BLOCKING, str(artefact.manifest), sha256, str(held), told, f"{name} {slug}"
            )


def check(suite: Suite) -> list[Finding]:
    """Judge the claims again, and compare the file with what runs recorded."""
    artefact = suite.report_artefact("claims.manifest.json")
    if artefact is None:
        return []  # A01 reports it
    path = str(suite.reports / FILES["verdicts"])
    document, texts = rendered(suite)
    locked = _lock(suite, document["verdicts"])
    return [*locked, *_files(suite, texts), *_numbers(suite, path)]
