"""Stage collect-results: manifests -> one tidy frame, one row per number (style.md 7)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clsp.config.grid import Run, expand_runs
from clsp.config.plan import pretrain_job, probe_job, transfer_job
from clsp.config.schema import Params
from clsp.config.variation import number
from clsp.report.escape import write_csv
from clsp.report.records import Records, manifest_digest
from clsp.runtime.canonical import canonical_json, sha256_json
from clsp.runtime.files import write_atomic
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Outcome, Output

COLUMNS = (
    "run",
    "label",
    "dataset",
    "encoder",
    "method",
    "positives",
    "variation",
    "recipe",
    "uses_labels",
    "seed",
    "task",
    "protocol",
    "variant",
    "metric",
    "value",
    "correct",
    "total",
    "selected_on",
    "epoch",
    "manifest",
    "manifest_sha256",
    "spec_sha256",
    "code",
    "git_commit",
    "mlflow_run_id",
    "status",
)

Row = dict[str, Any]
Name = tuple[str, str, str]  # dataset, encoder and label: what names a row of a table


def ordinary_runs(params: Params) -> list[Run]:
    """The runs in which no grid varied anything: what tables and figures compare."""
    return [run for run in expand_runs(params).values() if not run.variation]


def runs_by_name(params: Params) -> dict[Name, list[Run]]:
    """The runs behind every row that some table may have, one per seed."""
    found: dict[Name, list[Run]] = {}
    for run in expand_runs(params).values():
        for label in run.names:
            name = (str(run.axes["dataset"]), str(run.axes["encoder"]), label)
            found.setdefault(name, []).append(run)
    return found


def expected_numbers(run: Run) -> dict[str, list[tuple[str, str, str]]]:
    """The numbers a run must yield, as stage -> [(task, protocol, variant)]."""
    dataset = run.spec.dataset
    probed = [(dataset, "linear", ""), (dataset, "knn", "")]
    if run.probe.knn.best_of:
        probed.append((dataset, "knn", "best_of_k"))
    numbers = {"probe-encoder": probed}
    if run.transfer is not None:
        numbers["probe-transfer"] = [(task, "transfer", "") for task in run.transfer.datasets]
    return numbers


def current_artefacts(run: Run, records: Records) -> dict[str, Artefact]:
    """The run's artefacts whose spec is what params.yaml asks for now, by stage."""
    jobs = [pretrain_job(run), probe_job(run), transfer_job(run)]
    found = {
        job.stage: records.current(job.stage, job.name, job.spec) for job in jobs if job is not None
    }
    return {stage: artefact for stage, artefact in found.items() if artefact is not None}


def results_of(artefact: Artefact) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The result records of a probe, by (task, protocol, variant)."""
    records = artefact.predicate["facts"].get("results", [])
    return {(r["task"], r["protocol"], r["variant"]): r for r in records}


def _origin(artefact: Artefact, records: Records) -> Row:
    inside = artefact.predicate["internalParameters"]
    return {
        "manifest": records.relative(artefact),
        "manifest_sha256": manifest_digest(artefact),
        "spec_sha256": sha256_json(artefact.spec),
        "code": inside.get("code", ""),
        "git_commit": inside.get("git_commit") or "",
        "mlflow_run_id": artefact.predicate.get("mlflow_run_id") or "",
    }


def _rows(run: Run, records: Records) -> Iterator[Row]:
    artefacts = current_artefacts(run, records)
    common = {
        **run.axes,
        "run": run.slug,
        "label": run.label,
        "variation": " ".join(f"{name}={number(v)}" for name, v in run.variation.items()),
        "recipe": run.spec.recipe.family,
        "uses_labels": "yes" if run.label_users else "no",
    }
    # A probe counts only if the encoder it judged is the one params.yaml asks for.
    trained = "pretrain-encoder" in artefacts
    for stage, numbers in expected_numbers(run).items():
        artefact = artefacts.get(stage) if trained else None
        results = results_of(artefact) if artefact else {}
        origin = _origin(artefact, records) if artefact else {}
        for task, protocol, variant in numbers:
            key = {"task": task, "protocol": protocol, "variant": variant}
            record = results.get((task, protocol, variant))
            fields = {c: record.get(c) for c in COLUMNS if c in record} if record else {}
            known = {**fields, **common, **(origin if record else {}), **key}
            yield {c: known.get(c) for c in COLUMNS} | {"status": "done" if record else "missing"}


def build_frame(params: Params, root: Path) -> list[Row]:
    """One row per expected number, in the order of params.yaml; missing ones have no value."""
    records = Records(root)
    return [row for run in expand_runs(params).values() for row in _rows(run, records)]


def frame_csv(rows: list[Row]) -> str:
    """The frame as csv text."""
    return write_csv(COLUMNS, rows)


def build_metrics(rows: list[Row]) -> dict[str, Any]:
    """Nested numbers for `dvc metrics`: one entry per run, and the mean of each label."""
    nested: dict[str, Any] = {}
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if row["status"] != "done":
            continue
        protocol = "_".join(filter(None, (row["protocol"], row["variant"])))
        nested.setdefault(row["run"], {}).setdefault(protocol, {})[row["task"]] = row["value"]
        label = f"{row['dataset']}.{row['encoder']}.{row['label']}"
        groups.setdefault((label, protocol, row["task"]), []).append(row["value"])
    summary: dict[str, Any] = {}
    for (label, protocol, task), values in groups.items():
        mean = round(sum(values) / len(values), 4)
        summary.setdefault(label, {}).setdefault(protocol, {})[task] = mean
    return {"runs": nested, "summary": summary}


def collect_results(spec: Params, root: Path, frame: Output, metrics: Output) -> Outcome:
    """Collect the results that params.yaml asks for from the manifests below a folder.

    Args:
        spec: The validated parameters.
        root: Folder with the results of one profile; only manifests are read.
        frame: Csv with one row per run x task x protocol x variant; see COLUMNS.
        metrics: Json for `dvc metrics show`.
    """
    rows = build_frame(spec, root)
    write_atomic(frame, frame_csv(rows))
    write_atomic(metrics, canonical_json(build_metrics(rows)) + "\n")
    missing = sum(row["status"] == "missing" for row in rows)
    return Outcome(counters={"rows": len(rows), "missing": missing})
