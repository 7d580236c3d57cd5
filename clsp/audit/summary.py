"""What the audit prints."""

from collections import Counter
from typing import Any

from clsp.audit.level import L4
from clsp.audit.replayed import inputs_of
from clsp.audit.suite import Suite
from clsp.audit.verdict import ACCEPTED, INVALID, NOT_RUN, VERIFIED


def rerun_hint(suite: Suite) -> list[str]:
    """At L4: the command that repeats one whole run, chosen by the nonce, and compares it."""
    if suite.depth.level != L4 or not suite.trainings:
        return []
    run, artefact = suite.trainings[int(suite.chosen("whole").integers(len(suite.trainings)))]
    inputs = " ".join(str(artefact.manifest) for artefact in inputs_of(suite, run) or [])
    return [
        "L4 is a rerun; to repeat a whole run in a scratch folder and compare its digests:",
        f"  python -m clsp replay whole --run {artefact.manifest} --inputs {inputs}",
    ]


def _rows(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns of equal width; the last one as long as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in padded]


def _cells(cells: list[dict[str, Any]]) -> list[str]:
    """The verdict on every row of every table: how many cells it has, and what spoils them."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        name = f"{cell['table']}: {cell['dataset']} {cell['encoder']} {cell['label']}"
        because = ", ".join(cell["because"])
        key = (cell["verdict"], cell["level"] or "-", name, because)
        groups.setdefault(key, []).append(cell)
    rows = [("verdict", "level", "row", "cells")]
    for (verdict, level, name, because), held in groups.items():
        told = f"{len(held)}"
        if verdict != VERIFIED:
            told += f": {'; '.join(cell['column'] for cell in held)}"
        rows.append((verdict, level, name, told + (f" ({because})" if because else "")))
    return _rows(rows) if cells else []


def _claims(claims: list[dict[str, Any]]) -> list[str]:
    """The verdict on every claim, with the reason."""
    rows = [("claim", "verdict", "because")]
    for claim in claims:
        parts = ("id", "dataset", "encoder", "left")
        about = " ".join(str(claim[key]) for key in parts if claim.get(key))
        told = [str(claim["because"])] if claim["because"] else []
        told += [f"indicative: {claim['indicative']}"] if claim.get("indicative") else []
        rows.append((about, claim["verdict"], "; ".join(told)))
    return ["", *_rows(rows), ""] if claims else []


def summary(record: dict[str, Any]) -> list[str]:
    """Lines for the terminal: the verdicts on cells and claims, totals, limits and the verdict."""
    totals = record["totals"]
    cells, counts = totals["cells"], totals["findings"]
    lines = [*_cells(record["cells"]), *_claims(record["claims"])]
    lines.append(
        f"{totals['manifests']} manifests, {totals['files']} files "
        f"({totals['bytes'] / 1e6:.1f} MB) hashed, {totals['numbers']} numbers expected, "
        f"MLflow {record['mlflow']}"
    )
    lines.append(
        "cells: "
        + ", ".join(f"{count} {verdict}" for verdict, count in cells.items())
        + "; findings: "
        + ", ".join(f"{count} {kind}" for kind, count in counts.items())
    )
    judged = Counter(claim["verdict"] for claim in record["claims"])
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(judged.items()))
    lines.append(f"claims: {told or 'none'}")
    if record["mark"]:
        lines.append(record["mark"])
    ended = ", ".join(f"{n} {status}" for status, n in record["ledger"]["attempts"].items())
    lines.append(f"attempts: {ended or 'none recorded'}; ledger head {record['ledger']['head']}")
    if record["nonce"]:
        lines.append(
            f"nonce {record['nonce']}; replayed: {', '.join(record['replayed']) or 'none'}"
        )
    lines += [f"accepted {name}: {reason}" for name, reason in record["accepted"].items()]
    lines.append(record["limits"])
    words = {VERIFIED: "PASS", INVALID: "FAIL", ACCEPTED: "FAIL (accepted)", NOT_RUN: "INCOMPLETE"}
    lines.append(f"audit: {words[record['verdict']]} (level {record['level']})")
    return lines
