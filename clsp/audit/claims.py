"""Verdicts on claims after the audit: what blocks a number makes every claim about it invalid."""

from functools import partial
from pathlib import Path
from typing import Any

from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.images import image_noise
from clsp.audit.level import L2, reaches
from clsp.audit.suite import Suite
from clsp.report.verdict import INVALID, NOT_REPRODUCED, NOT_RUN, REPRODUCED, WITHIN
from clsp.report.verdicts import render_verdicts
from clsp.runtime.errors import ClspError

CHECK = "A50"
MALFORMED = (OSError, ValueError, LookupError, TypeError, AttributeError, ClspError)
JUDGED = (REPRODUCED, WITHIN, NOT_REPRODUCED)
WHOLE = "claims"  # subject of findings that are about every claim
FILES = {
    "verdicts": "verdicts.json",
    "statement": "verdicts.intoto.json",
    "csv": "claims.csv",
    "md": "claims.md",
    "tex": "claims.tex",
}


def claims_file(suite: Suite) -> Path:
    """The auditor's claims, apart from any results."""
    return suite.expectations / "claims.yaml"


def rendered(suite: Suite) -> tuple[dict[str, Any], dict[str, str]]:
    """The verdicts and their files as they follow from the manifests that are there now."""
    return render_verdicts(suite.shown, suite.records, suite.frame_text, claims_file(suite))


def numbers_behind(record: dict[str, Any]) -> set[Number]:
    """Numbers that a verdict was computed from."""
    runs = record.get("runs") or [
        *(record.get("left_runs") or ()),
        *(record.get("right_runs") or ()),
    ]
    tasks = record.get("tasks") or [record.get("task", "")]
    kind = partial(Number, protocol=record.get("protocol", ""), variant=record.get("variant", ""))
    return {kind(run=run, task=task) for run in runs for task in tasks}


def _because(record: dict[str, Any], findings: list[Finding]) -> list[str]:
    numbers, name = numbers_behind(record), record["id"]
    found = {
        f.id
        for f in findings
        if f.severity == BLOCKING
        and (
            f.everything
            or bool(f.numbers & numbers)
            or (f.id == CHECK and f.subject.split(" ")[0] in (WHOLE, name))
        )
    }
    return sorted(found)


def audited_claims(suite: Suite, findings: list[Finding]) -> list[dict[str, Any]]:
    """Every claim with its verdict after the audit, and the level that it rests on."""
    try:
        document, _ = rendered(suite)
    except MALFORMED as error:  # check A50 has reported it; no verdict then stands
        return [{"id": WHOLE, "verdict": INVALID, "because": f"{CHECK}: {error}"[:200]}]
    claims, spoiled = [], set()
    for record in document["verdicts"]:
        blocking = _because(record, findings)
        shown = {key: record.get(key) for key in ("id", "text", "dataset", "encoder", "left")}
        verdict, because = record["verdict"], record["because"]
        if record.get("claim") in spoiled:
            blocking = [*blocking, record["claim"]]
        shallow = not reaches(suite.depth.level, L2)
        if blocking:
            verdict, because = INVALID, ", ".join(blocking)
            spoiled.add(record["id"])
        elif verdict in JUDGED and shallow:
            verdict, because = NOT_RUN, f"audited at {suite.depth.level}, which recomputes nothing"
        told = {"verdict": verdict, "because": because, "indicative": record["indicative"]}
        if record["kind"] == "difference" and not shallow:
            told["image_noise"] = image_noise(suite, record)
        claims.append({**shown, **told, "level": suite.depth.level if verdict in JUDGED else None})
    return claims
