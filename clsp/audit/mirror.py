"""Reads values from an MLflow store, without writing to it."""

import contextlib
import math
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clsp.runtime.canonical import read_json
from clsp.runtime.errors import DataError

SQLITE = "sqlite:///"
EXPORT = "bundle:"  # followed by the path of what a bundle keeps of a store
EXPORT_SCHEMA = 1
HISTORY = "history/"  # metrics that a job's step log gives


@dataclass
class MirroredRun:
    """What MLflow holds of one run.

    Attributes:
        status: "FINISHED" for a run that ended well.
        deleted: Whether it lies in MLflow's trash.
        values: Metric name -> every value that MLflow could show for it: the newest point and
            the entry of its table of latest values.
        points: (name in the step log, step) -> every value of it.
        params: Parameter name -> value.
    """

    status: str
    deleted: bool
    values: dict[str, list[float]] = field(default_factory=dict)
    points: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, step: int, value: float) -> None:
        """Take one metric value in."""
        if key.startswith(HISTORY):
            self.points.setdefault((key.removeprefix(HISTORY), step), []).append(value)
        else:
            self.values.setdefault(key, []).append(value)


def store_path(uri: str) -> Path | None:
    """The database file of a SQLite URI, or None for any other kind of store."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def exists(uri: str) -> bool:
    """Whether there is a store to look at; a remote one is asked later."""
    path = Path(uri.removeprefix(EXPORT)) if uri.startswith(EXPORT) else store_path(uri)
    return path is None or path.is_file()


def _connect(path: Path) -> sqlite3.Connection:
    # "immutable" keeps SQLite from creating its side files. With a write-ahead log that still
    # holds pages they are there already, and have to be read.
    log = path.with_name(f"{path.name}-wal")
    held = log.is_file() and log.stat().st_size > 0
    mode = "mode=ro" if held else "immutable=1"
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?{mode}", uri=True)


NEWEST = """
    select run_uuid, key, step, value, is_nan from (
        select *, row_number() over (
            partition by run_uuid, key order by step desc, timestamp desc, value desc
        ) as place from metrics where key not like 'history/%'
    ) where place = 1
"""
POINTS = "select run_uuid, key, step, value, is_nan from metrics where key like 'history/%'"
LATEST = "select run_uuid, key, step, value, is_nan from latest_metrics"


def _from_database(path: Path, wanted: Collection[str]) -> dict[str, MirroredRun]:
    try:
        with contextlib.closing(_connect(path)) as database:
            states = database.execute("select run_uuid, status, lifecycle_stage from runs")
            runs = {
                run: MirroredRun(str(state), stage != "active")
                for run, state, stage in states
                if run in wanted
            }
            for query in (NEWEST, POINTS, LATEST):
                for run, key, step, value, is_nan in database.execute(query):
                    if run in runs:
                        runs[run].add(str(key), step, float("nan") if is_nan else float(value))
            for run, key, value in database.execute("select run_uuid, key, value from params"):
                if run in runs:
                    runs[run].params[str(key)] = str(value)
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise DataError(f"{path}: not a readable MLflow store ({error})") from error
    return runs


def _from_server(uri: str, wanted: Collection[str]) -> dict[str, MirroredRun]:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client, runs = MlflowClient(tracking_uri=uri), {}
    except MlflowException as error:
        raise DataError(f"{uri}: not a tracking URI that MLflow knows ({error})") from error
    for identifier in wanted:
        try:
            run = client.get_run(identifier)
            points = [
                (key, point.step, point.value)
                for key in run.data.metrics
                if key.startswith(HISTORY)
                for point in client.get_metric_history(identifier, key)
            ]
        except MlflowException:
            continue  # not there; the check says so
        deleted = run.info.lifecycle_stage != "active"
        found = runs[identifier] = MirroredRun(run.info.status, deleted)
        found.params.update(run.data.params)
        plain = [(k, 0, v) for k, v in run.data.metrics.items() if not k.startswith(HISTORY)]
        for point in plain + points:
            found.add(*point)
    return runs


def read_runs(uri: str, wanted: Collection[str]) -> dict[str, MirroredRun]:
    """Runs of a store by their id; a SQLite store is read as a file, any other by its client.

    Raises:
        DataError: If the store cannot be read.
    """
    if uri.startswith(EXPORT):
        return _from_export(Path(uri.removeprefix(EXPORT)), wanted)
    path = store_path(uri)
    return _from_server(uri, wanted) if path is None else _from_database(path, wanted)


def export_runs(runs: dict[str, MirroredRun]) -> dict[str, Any]:
    """What a bundle keeps of a store: values, curves and settings; no user, folder or time."""

    def plain(values: list[float]) -> list[float | str]:
        return [value if math.isfinite(value) else str(value) for value in values]

    told = {
        identifier: {
            "status": run.status,
            "deleted": run.deleted,
            "values": {name: plain(held) for name, held in sorted(run.values.items())},
            "points": [[*key, plain(held)] for key, held in sorted(run.points.items())],
            "params": dict(sorted(run.params.items())),
        }
        for identifier, run in sorted(runs.items())
    }
    return {"schema_version": EXPORT_SCHEMA, "runs": told}


def _from_export(path: Path, wanted: Collection[str]) -> dict[str, MirroredRun]:
    document, found = read_json(path), {}
    try:
        if document["schema_version"] != EXPORT_SCHEMA:
            raise ValueError(f"schema_version {document['schema_version']}")
        for identifier, told in document["runs"].items():
            if identifier in wanted:
                found[identifier] = MirroredRun(
                    str(told["status"]),
                    bool(told["deleted"]),
                    {name: [float(v) for v in held] for name, held in told["values"].items()},
                    {(n, step): [float(v) for v in held] for n, step, held in told["points"]},
                    {key: str(value) for key, value in told["params"].items()},
                )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not what a bundle keeps of MLflow ({error})") from error
    return found
