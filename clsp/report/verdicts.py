"""Stage judge-claims: a verdict on every claim, as json, a table and an in-toto statement."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from clsp.config.claims import Claims, read_claims
from clsp.config.grid import expand_runs
from clsp.config.plan import pretrain_job
from clsp.config.schema import Params
from clsp.report.cells import DASH, DEMONSTRATION, MINUS
from clsp.report.claims import judge_claims as judge
from clsp.report.contest import Contest
from clsp.report.escape import latex, latex_table, markdown, write_csv
from clsp.report.records import Records
from clsp.report.table import read_frame
from clsp.report.verdict import INVALID, NOT_REPRODUCED, REPRODUCED, Record
from clsp.runtime.canonical import canonical_json, sha256_file, sha256_text
from clsp.runtime.files import write_atomic
from clsp.runtime.stage import File, Input, Outcome, Output

TITLE = "Claims of the paper"
STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
NUMBERS = (
    "n", "difference", "low", "high", "lower", "upper", "margin", "tau", "p", "p_holm",
    "won", "at_least", "value", "limit",
)  # fmt: skip
COLUMNS = (
    "id", "kind", "text", "dataset", "encoder", "left", "right", "protocol", "test", "seeds",
    *NUMBERS, "image_error", "bootstrap_low", "bootstrap_high", "power_1", "power_2", "power_3",
    "direction", "verdict", "because", "indicative",
    "published", "published_source", "protocol_mismatch", "demonstration",
)  # fmt: skip
HEAD = (
    "Claim", "Proposition", "Where", "Compared", "n", "Effect [95 % interval]", "Bound, margin",
    "Verdict", "Indicative", "Published",
)  # fmt: skip
NOTES = (
    "Effect: mean difference in points with its two-sided t-interval; for counts, datasets won. "
    "Bound: the one-sided 95 % bound that has to reach the margin. Verdict: reproduced if it does; "
    "not reproduced if the margin is excluded or the mean is more than the tolerance below it; "
    "otherwise within tolerance; not run with missing numbers, fewer than three seeds or a reduced "
    "profile; invalid if the claims file is not the one that the runs recorded at their start.",
    "Indicative: what the numbers alone would say. Seeds are the first of the declared list; none "
    "is chosen by its result. A verdict stands if the audit finds nothing blocking behind it; "
    "audit.json has the verdicts after the audit.",
    "In the csv: a bootstrap over seeds, which decides nothing, because with 3 to 5 seeds its 95 % "
    "interval covers 75 to 83 %; and the standard error that the finite test set alone gives the "
    "difference, at most (image_error), in no interval and no n. The audit has that by drawing "
    "test images anew from stored logits, the same for both sides.",
    "Published: the same arithmetic on public numbers, decides nothing; [mismatch]: the two were "
    "not measured by one protocol.",
)


def claims_lock(params: Params, records: Records, sha256: str) -> Callable[[list[str]], str]:
    """Compares the claims file with what pretraining runs recorded when they started."""
    runs = expand_runs(params)

    def recorded(slug: str) -> str | None:
        job = pretrain_job(runs[slug])
        artefact = records.current(job.stage, job.name, job.spec)
        held = artefact.predicate["internalParameters"] if artefact else {}
        return held.get("claims_sha256")

    def judge(slugs: list[str]) -> str:
        strange = [slug for slug in dict.fromkeys(slugs) if recorded(slug) != sha256]
        if not strange:
            return ""
        found = recorded(strange[0]) or "no claims file"
        return (
            f"{len(strange)} of {len(set(slugs))} runs, such as {strange[0]}, recorded another "
            f"claims file: {found[:16]}, this is {sha256[:16]}"
        )

    return judge


def build_verdicts(
    params: Params, records: Records, frame_text: str, claims: Path
) -> dict[str, Any]:
    """verdicts.json as plain JSON types; pure, so the audit can repeat it."""
    sha256, spec = sha256_file(claims), read_claims(claims)
    contest = Contest(params, read_frame(frame_text))
    return {
        "schema_version": 1,
        "profile": params.profile,
        "reduced": params.demonstration,
        "mark": DEMONSTRATION if params.demonstration else "",
        "claims_sha256": sha256,
        "minimum_seeds": spec.minimum_seeds,
        "verdicts": judge(contest, spec, claims_lock(params, records, sha256)),
    }


def build_statement(document: dict[str, Any], text: str) -> dict[str, Any]:
    """The in-toto statement about verdicts.json."""
    named: dict[str, list[str]] = {}
    for place, record in enumerate(document["verdicts"], start=1):
        test = ".".join(filter(None, (record["id"], record.get("dataset"), str(place))))
        named.setdefault(record["verdict"], []).append(test)
    failed = [*named.get(INVALID, []), *named.get(NOT_REPRODUCED, [])]
    passed = named.get(REPRODUCED, [])
    rest = [
        t for v, of in named.items() if v not in (INVALID, NOT_REPRODUCED, REPRODUCED) for t in of
    ]
    result = "FAILED" if failed else "WARNED" if rest else "PASSED"
    return {
        "_type": STATEMENT,
        "subject": [{"name": "verdicts.json", "digest": {"sha256": sha256_text(text)}}],
        "predicateType": TEST_RESULT,
        "predicate": {
            "result": result,
            "configuration": [
                {
                    "name": "reports/spec/claims.yaml",
                    "digest": {"sha256": document["claims_sha256"]},
                }
            ],
            "passedTests": passed,
            "warnedTests": rest,
            "failedTests": failed,
        },
    }


def signed(value: float, digits: int = 2) -> str:
    """A difference as people read it: +1.20, −0.30."""
    return f"{MINUS if value < 0 else '+'}{abs(value):.{digits}f}"


def effect_text(record: Record) -> str:
    """The effect of a verdict: a difference, a count or a value."""
    if record.get("difference") is not None:
        low, high = (signed(record[end]) for end in ("low", "high"))
        return f"{signed(record['difference'])} [{low}, {high}], {record['direction']}"
    if record.get("won") is not None:
        return f"{record['won']} of {len(record.get('tasks') or record['among'])}"
    if record.get("value") is not None:
        return f"{record['value']:.2f}"
    return DASH


def bound_text(record: Record) -> str:
    """What has to be reached, and what the data bound it by."""
    if record.get("margin") is not None:
        lower = record.get("lower")
        found = DASH if lower is None else signed(lower)
        return f"{found} {record['relation']} {record['margin']:g}"
    if record.get("at_least") is not None:
        lower = record.get("lower")
        return f"{DASH if lower is None else f'{lower:g}'} >= {record['at_least']}"
    if record.get("limit") is not None:
        return f"<= {record['limit']:g}"
    return DASH


def published_text(record: Record) -> str:
    """What public numbers say, or a dash."""
    told = [
        f"{signed(entry['value'])}{' [mismatch]' if entry['protocol_mismatch'] else ''}"
        for entry in record.get("published") or ()
    ]
    return ", ".join(told) or DASH


def _line(record: Record) -> list[str]:
    place = " ".join(filter(None, (record.get("dataset"), record.get("encoder"))))
    sides = [record[side] for side in ("left", "right") if record.get(side)]
    verdict = record["verdict"] + (f" ({record['because']})" if record["because"] else "")
    return [
        record["id"],
        record["text"],
        place or DASH,
        " against ".join(sides) or DASH,
        str(record.get("n", DASH)),
        effect_text(record),
        bound_text(record),
        verdict,
        record["indicative"] or DASH,
        published_text(record),
    ]


def claims_markdown(document: dict[str, Any]) -> str:
    """The verdicts as GitHub markdown."""
    lines = [f"## {TITLE}", ""]
    if document["mark"]:
        lines += [f"> **{markdown(document['mark'])}**", ""]
    rows = [HEAD, *map(_line, document["verdicts"])]
    shown = ["| " + " | ".join(map(markdown, row)) + " |" for row in rows]
    shown.insert(1, "|" + "|".join([" --- "] * len(HEAD)) + "|")
    return "\n".join([*lines, *shown, "", *(f"- {markdown(note)}" for note in NOTES)]) + "\n"


def claims_latex(document: dict[str, Any]) -> str:
    """The verdicts as a LaTeX table for the packages booktabs and threeparttable."""
    mark = f" {document['mark']}" if document["mark"] else ""
    rows = [" & ".join(map(latex, _line(record))) + r" \\" for record in document["verdicts"]]
    columns = "lp{4cm}lp{3cm}rllp{2.5cm}ll"
    return latex_table(f"{TITLE}.{mark}", "\\footnotesize", columns, HEAD, rows, NOTES)


def _joined(values: Iterable[Any]) -> str:
    return " ".join(map(str, values))


def claims_csv(document: dict[str, Any]) -> str:
    """The numbers behind the verdicts, one line each."""
    rows = []
    for record in document["verdicts"]:
        published = record.get("published") or []
        among, power = record.get("power") or [None] * 3, {}
        power = {f"power_{excess}": p for excess, p in enumerate(among, start=1)}
        drawn = record.get("bootstrap") or [None] * 2
        power |= dict(zip(("bootstrap_low", "bootstrap_high"), drawn, strict=True))
        row = {name: record.get(name) for name in COLUMNS} | power
        row["seeds"] = _joined(record.get("seeds") or ())
        row["published"] = _joined(entry["value"] for entry in published)
        row["published_source"] = "; ".join(entry["source"] for entry in published)
        row["protocol_mismatch"] = _joined(
            "yes" if entry["protocol_mismatch"] else "no" for entry in published
        )
        rows.append(row | {"demonstration": document["mark"]})
    return write_csv(COLUMNS, rows)


def render_verdicts(
    params: Params, records: Records, frame_text: str, claims: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """The verdicts, and the text of every file of this stage by its flag."""
    document = build_verdicts(params, records, frame_text, claims)
    text = canonical_json(document) + "\n"
    return document, {
        "verdicts": text,
        "statement": canonical_json(build_statement(document, text)) + "\n",
        "csv": claims_csv(document),
        "md": claims_markdown(document),
        "tex": claims_latex(document),
    }


def count_verdicts(claims: Claims, document: dict[str, Any]) -> dict[str, int]:
    """How many verdicts of each kind there are."""
    found: dict[str, int] = {"claims": len(claims.claims)}
    for record in document["verdicts"]:
        key = record["verdict"].replace(" ", "_")
        found[key] = found.get(key, 0) + 1
    return found


def judge_claims(
    spec: Params,
    root: Path,
    frame: Input,
    claims: File,
    verdicts: Output,
    statement: Output,
    csv: Output,
    md: Output,
    tex: Output,
) -> Outcome:
    """Judge every claim of the paper by the numbers of a profile.

    Args:
        spec: The validated parameters.
        root: Folder with the results of one profile; manifests of pretraining are read.
        frame: Made by collect-results.
        claims: reports/spec/claims.yaml.
        verdicts: One record per claim, dataset, encoder and flavour, with every number behind it.
        statement: An in-toto statement about it, with a test-result predicate.
        csv: The numbers as a table.
        md: The table as markdown.
        tex: The table as LaTeX (booktabs).
    """
    text = frame.path("frame.csv").read_text(encoding="utf-8")
    document, texts = render_verdicts(spec, Records(root), text, claims)
    for flag, path in (
        ("verdicts", verdicts),
        ("statement", statement),
        ("csv", csv),
        ("md", md),
        ("tex", tex),
    ):
        write_atomic(path, texts[flag])
    return Outcome(
        counters=count_verdicts(read_claims(claims), document),
        facts={"claims_sha256": document["claims_sha256"], "title": TITLE},
    )
