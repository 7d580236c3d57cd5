"""Stage collect-results: manifests -> one tidy frame, one row per number (style.md 7)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clsp.config.floors import Floor, expand_floors
from clsp.config.foreign import METHOD, Imported, expand_imported
from clsp.config.grid import Run, expand_runs
from clsp.config.plan import encoder_job, judging_jobs
from clsp.config.quality import PROTOCOL
from clsp.config.schema import Params
from clsp.config.variation import number
from clsp.report.escape import write_csv
from clsp.report.quality import quality_rows
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
    "checkpoint",
    "images",
    "seed",
    "task",
    "protocol",
    "variant",
    "metric",
    "value",
    "correct",
    "total",
    "selected_on",
    "converged",
    "epoch",
    "manifest",
    "manifest_sha256",
    "spec_sha256",
    "code",
    "git_commit",
    "mlflow_run_id",
    "status",
)

# What has to be current for a number to count, beside the encoder that params.yaml asks for now.
READS = {
    "probe-encoder": ("extract-features",),
    "probe-transfer": ("extract-features",),
    "probe-few-shot": ("extract-features",),
    "fine-tune-encoder": (),
}

Row = dict[str, Any]
Name = tuple[str, str, str]  # dataset, encoder and label: what names a row of a table
Key = tuple[str, str, str]  # task, protocol and variant: what names a number of a run or floor
Judged = Run | Imported | Floor


def ordinary_runs(params: Params) -> list[Run]:
    """The runs in which no grid varied anything: what tables and figures compare."""
    return [run for run in expand_runs(params).values() if not run.variation]


def all_judged(params: Params) -> dict[str, Judged]:
    """Everything that is judged, by slug: runs, imported encoders, then floors."""
    return {**expand_runs(params), **expand_imported(params), **expand_floors(params)}


def row_name(judged: Judged) -> Name:
    """Dataset, encoder and label of what is judged."""
    if isinstance(judged, Run):
        return str(judged.axes["dataset"]), str(judged.axes["encoder"]), judged.label
    return judged.dataset, judged.encoder, judged.label


def runs_by_name(params: Params) -> dict[Name, list[Judged]]:
    """What is judged behind every row that some table may have, one per seed."""
    found: dict[Name, list[Judged]] = {}
    for judged in all_judged(params).values():
        dataset, encoder, label = row_name(judged)
        for printed in judged.names if isinstance(judged, Run) else [label]:
            found.setdefault((dataset, encoder, printed), []).append(judged)
    return found


def _probed(run: Run | Imported) -> dict[str, list[Key]]:
    """The numbers that floors do not yield."""
    dataset = run.judged_on
    probed = [(dataset, "linear", ""), (dataset, "knn", "")]
    if run.probe.linear.grid:
        probed.append((dataset, "linear", "best_rate"))
    if run.probe.knn.best_of:
        probed.append((dataset, "knn", "best_of_k"))
    numbers = {"probe-encoder": probed}
    if run.fine_tune is not None:
        tasks = run.fine_tune.datasets
        numbers["fine-tune-encoder"] = [(task, "fine_tune", "") for task in tasks]
    return numbers


def expected_numbers(judged: Judged) -> dict[str, list[Key]]:
    """The numbers an encoder or floor must yield, as stage -> [(task, protocol, variant)]."""
    numbers = {} if isinstance(judged, Floor) else _probed(judged)
    if judged.transfer is not None:
        tasks = judged.transfer.datasets
        numbers["probe-transfer"] = [(task, "transfer", "") for task in tasks]
    if judged.few_shot is not None:
        asked = judged.few_shot
        numbers["probe-few-shot"] = [
            (task, "few_shot", point) for task in asked.datasets for point in asked.few_shot.points
        ]
    return numbers


def current_artefacts(judged: Judged, records: Records) -> dict[str, Artefact]:
    """Artefacts of an encoder or floor whose spec is what params.yaml asks for now, by stage."""
    jobs = [encoder_job(judged), *judging_jobs(judged)]
    found = {
        job.stage: records.current(job.stage, job.name, job.spec) for job in jobs if job is not None
    }
    return {stage: artefact for stage, artefact in found.items() if artefact is not None}


def counted(judged: Judged, stage: str, artefacts: dict[str, Artefact]) -> Artefact | None:
    """The artefact of a judging stage, if what it judged is what params.yaml asks for."""
    maker = encoder_job(judged)
    reads = [*READS[stage], *([maker.stage] if maker else [])]
    return artefacts.get(stage) if all(name in artefacts for name in reads) else None


def results_of(artefact: Artefact) -> dict[Key, dict[str, Any]]:
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


def checkpoint_of(artefact: Artefact | None) -> str:
    """File name and sha256 of the file that an encoder was imported from, as one text."""
    if artefact is None:
        return ""
    told = artefact.predicate["facts"].get("source")
    told = told if isinstance(told, dict) else {}
    name = str(told.get("path", "unknown")).rpartition("/")[2]
    return f"{name} sha256:{told.get('sha256', 'unknown')}"


def _about(judged: Judged, artefacts: dict[str, Artefact]) -> Row:
    """The columns that every number of an encoder or floor shares; a floor has no method."""
    if not isinstance(judged, Run):
        dataset, encoder, label = row_name(judged)
        method = METHOD if isinstance(judged, Imported) else ""
        place = {"dataset": dataset, "encoder": encoder, "method": method, "positives": ""}
        rest = {"label": label, "variation": "", "recipe": "", "uses_labels": "no"}
        about = {**place, **rest, "checkpoint": "", "run": judged.slug}
        if isinstance(judged, Floor):
            return {**about, "seed": judged.seed}
        used = "yes" if judged.spec.uses_labels else "no"
        file = checkpoint_of(artefacts.get("import-encoder"))
        return {**about, "seed": None, "uses_labels": used, "checkpoint": file}
    return {
        **judged.axes,
        "run": judged.slug,
        "label": judged.label,
        "variation": " ".join(f"{name}={number(v)}" for name, v in judged.variation.items()),
        "recipe": judged.spec.recipe.family,
        "uses_labels": "yes" if judged.label_users else "no",
        "checkpoint": "",
    }


def _converged(record: dict[str, Any]) -> str:
    """Whether the fits behind a number converged; empty where nothing is fitted.

    "grid": the final fit did, but not all of those among which its regulariser was chosen.
    """
    found = record["selection"].get("converged")
    if not isinstance(found, bool):
        return ""
    if not found:
        return "no"
    return "grid" if record["selection"].get("not_converged_in_grid") else "yes"


def _rows(judged: Judged, records: Records) -> Iterator[Row]:
    artefacts = current_artefacts(judged, records)
    common = _about(judged, artefacts)
    for stage, numbers in expected_numbers(judged).items():
        artefact = counted(judged, stage, artefacts)
        results = results_of(artefact) if artefact else {}
        origin = _origin(artefact, records) if artefact else {}
        for task, protocol, variant in numbers:
            key = {"task": task, "protocol": protocol, "variant": variant}
            record = results.get((task, protocol, variant))
            fields = {c: record.get(c) for c in COLUMNS if c in record} if record else {}
            if record:
                fields["converged"] = _converged(record)
            known = {**fields, **common, **(origin if record else {}), **key}
            yield {c: known.get(c) for c in COLUMNS} | {"status": "done" if record else "missing"}


def build_frame(params: Params, root: Path) -> list[Row]:
    """One row per expected number, in the order of params.yaml; missing ones have no value."""
    records = Records(root)
    rows = [row for judged in all_judged(params).values() for row in _rows(judged, records)]
    return [*rows, *_bank_rows(params, records)]


def _bank_rows(params: Params, records: Records) -> Iterator[Row]:
    """The quality figures of banks."""
    for row, artefact in quality_rows(params, records):
        known = row | (_origin(artefact, records) if artefact else {})
        yield {c: known.get(c) for c in COLUMNS} | {"status": "done" if artefact else "missing"}


def frame_csv(rows: list[Row]) -> str:
    """The frame as csv text."""
    return write_csv(COLUMNS, rows)


def build_metrics(rows: list[Row]) -> dict[str, Any]:
    """Nested numbers for `dvc metrics`: one entry per run or bank, and the mean of each label."""
    nested: dict[str, Any] = {}
    banks: dict[str, Any] = {}
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if row["status"] != "done":
            continue
        if row["protocol"] == PROTOCOL:
            named = banks.setdefault(row["run"], {}).setdefault(row["encoder"], {})
            named.setdefault(row["variant"], {})[row["metric"]] = row["value"]
            continue
        protocol = "_".join(filter(None, (row["protocol"], row["variant"])))
        nested.setdefault(row["run"], {}).setdefault(protocol, {})[row["task"]] = row["value"]
        label = f"{row['dataset']}.{row['encoder']}.{row['label']}"
        groups.setdefault((label, protocol, row["task"]), []).append(row["value"])
    summary: dict[str, Any] = {}
    for (label, protocol, task), values in groups.items():
        mean = round(sum(values) / len(values), 4)
        summary.setdefault(label, {}).setdefault(protocol, {})[task] = mean
    return {"runs": nested, "summary": summary, **({"banks": banks} if banks else {})}


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
