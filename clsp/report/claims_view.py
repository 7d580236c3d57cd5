"""The claims as the page shows them: a card per proposition, with the numbers behind it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from clsp.config.grid import expand_runs
from clsp.config.plan import pretrain_job
from clsp.config.schema import Params
from clsp.report.cells import DASH
from clsp.report.chain import Digest
from clsp.report.collect import Name
from clsp.report.evidence import Book, Evidence
from clsp.report.records import Records
from clsp.report.verdict import INVALID, NOT_REPRODUCED, NOT_RUN, REPRODUCED, WITHIN, Record
from clsp.report.verdicts import signed
from clsp.runtime.canonical import read_json
from clsp.runtime.errors import DataError
from clsp.runtime.manifest import Artefact

# Look and symbol of a verdict; its word is always printed too, so that no colour is needed.
BADGES = {
    REPRODUCED: ("reproduced", "✓"),
    WITHIN: ("within", "≈"),
    NOT_REPRODUCED: ("missed", "✗"),
    NOT_RUN: ("unrun", "○"),
    INVALID: ("invalid", "!"),
}
MEANINGS = {
    REPRODUCED: "the 95 % bound of what was measured reaches the margin",
    WITHIN: "the mean is within the tolerance of the margin, and the data do not decide",
    NOT_REPRODUCED: "the data exclude the margin, or fall short of it by more than the tolerance",
    NOT_RUN: "numbers or seeds are missing, or the profile is a demonstration",
    INVALID: "the claims file is not the one that the runs recorded when they started",
}
TESTS = {"paired_t": "paired t-test", "welch_t": "Welch's t-test"}
DEVIATIONS = "standard deviations of the differences"
Fact = tuple[str, str]  # term and text
Link = tuple[str, str]  # text and id on this page


@dataclass(frozen=True)
class SeedPair:
    """The two numbers of one seed, each with the id of its run, and their difference."""

    seed: int
    left: Link
    right: Link
    difference: str


@dataclass(frozen=True)
class Judgement:
    """One verdict: a proposition on one dataset and encoder."""

    place: str
    verdict: str
    because: str
    indicative: str
    facts: list[Fact]
    rows: list[Link]  # rows and cells that it is about
    seeds: list[SeedPair] = field(default_factory=list)
    sides: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Claim:
    """One proposition with its verdicts."""

    name: str
    text: str
    judgements: list[Judgement]


@dataclass(frozen=True)
class Claims:
    """The section about claims.

    Attributes:
        claims: In the order of the claims file.
        counts: Verdict -> names of claims that have it.
        sha256: Of the claims file.
        recorded: Pretraining runs that recorded this very file when they started.
        runs: Pretraining runs that are there.
        files: Files of the verdicts with their digests.
    """

    claims: list[Claim]
    counts: dict[str, list[str]]
    sha256: str
    recorded: int
    runs: int
    files: list[Digest]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _difference(record: Record) -> list[Fact]:
    """The numbers of a difference in words; none of them without two seeds."""
    n, seeds = record["n"], ", ".join(map(str, record["seeds"]))
    needs = f"{'more than' if record['relation'] == '>' else 'at least'} {record['margin']:g}"
    facts = [("needed", f"{needs} points; tolerance {record['tau']:g} points")]
    if record["left_mean"] is not None and record["right_mean"] is not None:
        means = f"{record['left_mean']:.2f} against {record['right_mean']:.2f} %"
        facts.append(("means", means))
    if record["difference"] is None:
        return [*facts, ("seeds", f"{seeds or 'none'} (n = {n})")]
    low, high, lower = (signed(record[key]) for key in ("low", "high", "lower"))
    level = _percent(record["level"])
    power = ", ".join(map(_percent, record["power"]))
    corrected = record.get("p_holm")
    holm = "" if corrected is None else f"; {corrected:.3g} with Holm's correction"
    test = TESTS.get(record["test"], record["test"])
    interval = f"[{low}, {high}], the two-sided {level} t-interval"
    return [
        ("difference", f"{signed(record['difference'])} points {interval}: {record['direction']}"),
        ("bound that decides", f"{lower} points (one-sided, {level})"),
        *facts,
        ("seeds", f"{seeds} (n = {n})"),
        ("test", f"{test}, p = {record['p']:.3g}{holm}"),
        ("power", f"{power}, if the truth exceeds the margin by 1, 2, 3 {DEVIATIONS}"),
        *_beside(record),
    ]


def _beside(record: Record) -> list[Fact]:
    """What is shown and decides nothing: a bootstrap, and the noise of the test images."""
    facts = []
    if drawn := record.get("bootstrap"):
        low, high = map(signed, drawn)
        facts.append(("bootstrap over seeds", f"[{low}, {high}]; too narrow for few seeds"))
    if (error := record.get("image_error")) is not None:
        facts.append(("noise of the test images", f"{error:.2f} points at most; in no interval"))
    return facts


def _count(record: Record) -> list[Fact]:
    tasks = record.get("tasks") or record.get("among") or []
    facts = [("needed", f"{record['at_least']} datasets")]
    if record.get("won") is not None:
        counted = f"{record['won']} of {len(tasks)}, counted over {', '.join(tasks)}"
        facts.insert(0, ("best on" if "tasks" in record else "holds on", counted))
    if record.get("lower") is not None:
        bounds = f"{record['lower']:g} to {record['upper']:g}, by drawing seeds anew"
        facts.append(("90 % of resampled counts", bounds))
    for kind, seen in (record.get("judged") or {}).items():
        facts.append((f"{record['claim']} on {kind}", ", ".join(seen)))
    if "seeds" in record:
        seeds = ", ".join(map(str, record["seeds"])) or "none"
        facts.append(("seeds", f"{seeds} (n = {record['n']})"))
    return facts


def _limit(record: Record) -> list[Fact]:
    value = record["value"]
    return [
        ("value", DASH if value is None else f"{value:.2f}"),
        ("needed", f"at most {record['limit']:g}; tolerance {record['tau']:g}"),
        ("source of the limit", record["source"]),
    ]


def _published(record: Record) -> list[Fact]:
    """The same arithmetic on public numbers."""
    facts = []
    for entry in record.get("published") or ():
        mismatch = ", not measured by one protocol" if entry["protocol_mismatch"] else ""
        agrees = entry["left_consistent"]
        ours = "" if agrees is None else f"; ours {'agrees' if agrees else 'differs'}"
        text = (
            f"{signed(entry['value'])} = {entry['left']:g} − {entry['right']:g}{mismatch} "
            f"({entry['source']}{ours})"
        )
        facts.append(("published", text))
    return facts


def _facts(record: Record) -> list[Fact]:
    facts: list[Fact] = []
    if "margin" in record:
        facts = _difference(record)
    elif "at_least" in record:
        facts = _count(record)
    elif "limit" in record:
        facts = _limit(record)
    return [*facts, *_published(record)]


def _rows(record: Record, book: Book, tables: dict[str, list[Evidence]]) -> list[Link]:
    """Ids of what a verdict is about: its cells where a table has them, else its rows."""
    labels = record.get("rows") or [record.get("left"), record.get("right")]
    found: list[Link] = []
    for label in filter(None, labels):
        name = (str(record.get("dataset")), str(record.get("encoder")), label)
        if name in book.anchors:
            found.append((label, _cell_of(record, name, tables) or book.anchors[name]))
    if "limit" in record:
        banks = [name for name, runs in book.runs.items() if runs[0].slug == record["left"]]
        found += [(record["left"], book.anchors[name]) for name in banks]
    return found


def _cell_of(record: Record, name: Name, tables: dict[str, list[Evidence]]) -> str:
    wanted = (record.get("protocol"), record.get("variant"))
    tasks = " ".join(record.get("tasks") or [record.get("task") or ""])
    for rows in tables.values():
        for row in rows:
            for entry in row.entries.values():
                cell = entry.cell
                same = (cell.protocol, cell.variant) == wanted and cell.tasks == tasks
                if same and cell.row == name:
                    return entry.anchor
    return ""


def _seeds(record: Record, numbers: dict[tuple[str, ...], float]) -> list[SeedPair]:
    """The pairs that a difference was computed from."""
    found = []
    sides = (record.get("left_runs") or [], record.get("right_runs") or [])
    for seed, left, right in zip(record.get("seeds") or [], *sides, strict=False):
        key = (record["task"], record["protocol"], record["variant"])
        values = [numbers.get((slug, *key)) for slug in (left, right)]
        texts = [DASH if value is None else f"{value:.4f}" for value in values]
        first, second = values
        gap = DASH if first is None or second is None else signed(first - second, 4)
        links = ((text, f"run-{slug}") for text, slug in zip(texts, (left, right), strict=True))
        found.append(SeedPair(seed, *links, gap))
    return found


def _judgement(record: Record, book: Book, tables: dict[str, list[Evidence]]) -> Judgement:
    sides = (str(record.get("left") or ""), str(record.get("right") or ""))
    compared = " against ".join(filter(None, sides))
    where = ", ".join(filter(None, (record.get("dataset"), record.get("encoder"))))
    return Judgement(
        place=" on ".join(filter(None, (compared, where))),
        verdict=record["verdict"],
        because=record["because"],
        indicative=record["indicative"] or "",
        facts=_facts(record),
        rows=_rows(record, book, tables),
        seeds=_seeds(record, book.numbers),
        sides=sides,
    )


def _recorded(params: Params, records: Records, sha256: str) -> tuple[int, int]:
    """How many pretraining runs recorded this claims file, of how many that are there."""
    jobs = [pretrain_job(run) for run in expand_runs(params).values()]
    there = [records.current(job.stage, job.name, job.spec) for job in jobs]
    held = [a.predicate["internalParameters"].get("claims_sha256") for a in there if a]
    return held.count(sha256), len(held)


def _grouped(judged: Iterable[tuple[Record, Judgement]]) -> list[Claim]:
    claims: dict[str, Claim] = {}
    for record, judgement in judged:
        claim = claims.setdefault(record["id"], Claim(record["id"], record["text"], []))
        claim.judgements.append(judgement)
    return list(claims.values())


def build_claims(
    params: Params,
    records: Records,
    artefact: Artefact,
    book: Book,
    tables: dict[str, list[Evidence]],
) -> Claims:
    """The section about claims, from what judge-claims wrote.

    Raises:
        DataError: If verdicts.json holds something else.
    """
    path = artefact.path("verdicts.json")
    document: dict[str, Any] = read_json(path)
    try:
        judged = [(record, _judgement(record, book, tables)) for record in document["verdicts"]]
        sha256, counts = str(document["claims_sha256"]), {verdict: [] for verdict in BADGES}
        for record, _ in judged:
            if record["id"] not in counts[record["verdict"]]:
                counts[record["verdict"]].append(record["id"])
        recorded = _recorded(params, records, sha256)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not a record of verdicts ({error!r})") from error
    files = [(name, subject["digest"]["sha256"]) for name, subject in artefact.subjects.items()]
    return Claims(_grouped(judged), counts, sha256, *recorded, files)
