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


def summary(record: dict[str, Any]) -> list[str]:
    """Lines for the terminal: cells that are not verified, totals, limits and the verdict."""
    totals = record["totals"]
    cells, counts = totals["cells"], totals["findings"]
    lines = []
    shown = [cell for cell in record["cells"] if cell["verdict"] != VERIFIED]
    for cell in shown[:20]:
        because = f" ({', '.join(cell['because'])})" if cell["because"] else ""
        name = f"{cell['table']}: {cell['dataset']} {cell['encoder']} {cell['label']}"
        lines.append(f"{cell['verdict']:8} {name}, {cell['column']}{because}")
    if len(shown) > 20:
        lines.append(f"... and {len(shown) - 20} more cells; all of them are in audit.json")
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
