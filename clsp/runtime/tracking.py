"""The MLflow mirror: for looking at, never for deciding. The only file that imports mlflow.

One experiment per profile with one parent run; one child run per job, found again by a key, so
that a resumed job continues its run. Long jobs are mirrored while they run, from their history
file; short ones once at the end, because importing mlflow takes seconds. A store that cannot be
reached is reported and does not stop a job: the manifest then records no run, as the audit says.
"""

import argparse
import contextlib
import fcntl
import importlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clsp.runtime.canonical import sha256_json, sha256_text
from clsp.runtime.history import read_on

URI = "MLFLOW_TRACKING_URI"  # unset: nothing is mirrored
EXPERIMENT = "CLSP_EXPERIMENT"
INIT = "track-init"  # the command that creates the store
MIRRORED = (
    "train-denoiser",
    "gather-bank",
    "pretrain-encoder",
    "mine-pairs",
    "probe-encoder",
    "probe-transfer",
    "probe-few-shot",
    "fine-tune-encoder",
    "measure-bank",
)
FIRST, EVERY = 20.0, 15.0  # seconds until the first live update, and between updates
LIMIT = 1000  # points per call that MLflow accepts
LONGEST = 6000  # characters of a parameter that MLflow keeps; it cuts what is longer

log = logging.getLogger(__name__)


def default_uri() -> str:
    """The store of this working directory; absolute, because MLflow resolves it where it runs."""
    return f"sqlite:///{Path('mlflow.db').resolve()}"


def _client(uri: str) -> Any:
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def prepare(command: str) -> None:
    """Import what mirroring a job, or creating the store for it, takes."""
    uri = os.environ.get(URI)
    if uri and (command in MIRRORED or (command == INIT and not _is_ready(uri))):
        importlib.import_module("mlflow.tracking")
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")


def _find(client: Any, experiment: str, key: str) -> Any | None:
    found = client.search_runs([experiment], f"tags.`clsp.key` = '{key}'", max_results=1)
    return found[0] if found else None


def _create_database(path: Path) -> None:
    """Make an empty MLflow store that is whole as soon as it has its name.

    MLflow's own creation takes seconds and cannot be repeated after a kill in the middle.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    _client(f"sqlite:///{partial.resolve()}").search_experiments()
    partial.replace(path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("pragma journal_mode=wal")  # parallel jobs write; the mode persists


def ensure_store() -> tuple[Any, str, str]:
    """Create the store, the experiment and its parent run where they are missing.

    Serialised by a file lock: MLflow's own creation of a SQLite store and of an experiment both
    race (workflow.md section 2).

    Returns:
        The client, the experiment's id and the parent run's id.
    """
    name, uri = os.environ.get(EXPERIMENT, "clsp"), os.environ[URI]
    folder = Path(".clsp")
    folder.mkdir(exist_ok=True)
    with open(folder / "mlflow.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        database = Path(uri.removeprefix("sqlite:///"))
        if uri.startswith("sqlite:///") and not database.exists():
            _create_database(database)
        client = _client(uri)
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            identifier = client.create_experiment(name, str(Path("mlartifacts").resolve()))
        else:
            identifier = experiment.experiment_id
        parent = _find(client, identifier, "experiment")
        if parent is None:
            parent = client.create_run(identifier, run_name=name, tags={"clsp.key": "experiment"})
            client.set_terminated(parent.info.run_id, "FINISHED")
    return client, identifier, parent.info.run_id


def flatten(spec: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested spec -> MLflow parameters with dotted names."""
    flat: dict[str, str] = {}
    for key, value in spec.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def parameters(spec: dict[str, Any]) -> dict[str, str]:
    """The parameters that MLflow shows of a spec. What it would cut is named by its hash instead.

    The text itself is an artifact of the run then, `parameters/NAME.txt`.
    """
    return {
        name: text
        if len(text) <= LONGEST
        else f"sha256 {sha256_text(text)} of {len(text)} characters, in parameters/{name}.txt"
        for name, text in flatten(spec).items()
    }


class Mirror:
    """One job's MLflow run. Without a tracking URI every method does nothing.

    Args:
        stage: Name of the stage.
        manifest: Path of the manifest the job will write; shown as the run's link.
        spec: The job's spec; becomes the run's parameters.
        made_from: Digest of code and inputs. A job made from others opens a run of its own.
    """

    def __init__(self, stage: str, manifest: str, spec: dict[str, Any], made_from: str) -> None:
        self.on = bool(os.environ.get(URI)) and stage in MIRRORED
        self.stage, self.manifest, self.spec, self.made_from = stage, manifest, spec, made_from
        self.history: Path | None = None
        self.client: Any = None
        self.run_id: str | None = None
        self.logged = -1  # last step already in MLflow
        self.place = 0  # in the step log: what lies before has been read
        self.held: list[dict[str, Any]] = []  # the record of an epoch that goes on
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None

    def follow(self, history: Path | None) -> None:
        """Mirror a step log while it grows."""
        self.history = history
        if self.on and history is not None:
            self.thread = threading.Thread(target=self._follow, daemon=True)
            self.thread.start()

    def _follow(self) -> None:
        pause = FIRST
        while not self.ended.wait(pause):
            pause = EVERY
            try:
                with self.lock:
                    self._open()
                    self._push(final=False)
            except Exception as error:  # the mirror must never harm the job
                log.warning("MLflow mirror: %s", str(error).splitlines()[0])

    def _open(self) -> None:
        if self.run_id is not None:
            return
        self.client, experiment, parent = ensure_store()
        key = sha256_json([self.stage, self.manifest, self.spec, self.made_from])[:32]
        run = _find(self.client, experiment, key)
        if run is None or run.info.status == "FINISHED":  # finished: this job repeats a whole one
            name = Path(self.manifest).parent.name
            run = self.client.create_run(
                experiment,
                run_name=f"{self.stage} {name}",
                tags={
                    "clsp.key": key,
                    "clsp.stage": self.stage,
                    "clsp.manifest": self.manifest,
                    "clsp.made_from": self.made_from,
                    "mlflow.parentRunId": parent,
                },
            )
        else:
            self.client.update_run(run.info.run_id, status="RUNNING")
            steps = [
                point.step
                for name in run.data.metrics
                if name.startswith("history/")
                for point in self.client.get_metric_history(run.info.run_id, name)
            ]
            self.logged = max(steps, default=-1)
        self._log_parameters(run.info.run_id)  # again after a resume; equal values are accepted
        self.run_id = run.info.run_id

    def _log_parameters(self, run_id: str) -> None:
        from mlflow.entities import Param

        whole, shown = flatten(self.spec), parameters(self.spec)
        for name in (name for name, text in whole.items() if shown[name] != text):
            self.client.log_text(run_id, whole[name], f"parameters/{name}.txt")
        items = [Param(name, text) for name, text in shown.items()]
        for start in range(0, len(items), 100):
            self.client.log_batch(run_id, params=items[start : start + 100])

    def _push(self, final: bool) -> None:
        from mlflow.entities import Metric

        if self.history is None or not self.history.exists():
            return
        # While the job runs only what is new is read; at the end all, should an update have failed.
        found, place = read_on(self.history, 0 if final else self.place)
        last: dict[int, dict[str, Any]] = {}  # the last record of each epoch
        for record in found if final or place < self.place else [*self.held, *found]:
            last[record.get("epoch", record["step"])] = record
        records = list(last.values()) if final else list(last.values())[:-1]
        now = int(time.time() * 1000)
        points = [
            Metric(f"history/{name}", float(value), now, record["step"])
            for record in records
            if record["step"] > self.logged
            for name, value in record.items()
            if name != "step"
        ]
        for start in range(0, len(points), LIMIT):
            self.client.log_batch(self.run_id, metrics=points[start : start + LIMIT])
        if records:
            self.logged = max(self.logged, records[-1]["step"])
        self.place, self.held = place, list(last.values())[-1:]

    def finish(self, metrics: dict[str, float | int], history: Path | None) -> None:
        """Mirror what is left and the final metrics, and end the run.

        Args:
            metrics: What the stage returned.
            history: The step log under its final name.
        """
        self._stop()
        self.history = history
        self._end("FINISHED", metrics)

    def fail(self, status: str) -> None:
        """End the run as FAILED or KILLED, so that failed attempts stay visible."""
        self._end(status, {})

    def _stop(self) -> None:
        self.ended.set()
        if self.thread is not None:
            self.thread.join(timeout=30)

    def _end(self, status: str, metrics: dict[str, float | int]) -> None:
        self._stop()
        if not self.on:
            return
        try:
            with self.lock:
                self._open()
                self._push(final=True)
                from mlflow.entities import Metric

                now = int(time.time() * 1000)
                points = [Metric(k, float(v), now, 0) for k, v in metrics.items()]
                if points:
                    self.client.log_batch(self.run_id, metrics=points)
                self.client.set_terminated(self.run_id, status)
        except Exception as error:  # the mirror must never harm the job
            log.warning("MLflow mirror: %s; the results are complete without it", error)
            self.run_id = None


@contextlib.contextmanager
def mirror(stage: str, manifest: str, spec: dict[str, Any], made_from: str) -> Iterator[Mirror]:
    """Mirror one job; its end is recorded whatever happens."""
    opened = Mirror(stage, manifest, spec, made_from)
    try:
        yield opened
    except BaseException as error:
        opened.fail("KILLED" if isinstance(error, SystemExit | KeyboardInterrupt) else "FAILED")
        raise


def main(argv: list[str]) -> int:
    """`python -m clsp track-init`: create the store before parallel jobs need it, or do nothing."""
    parser = argparse.ArgumentParser(prog="python -m clsp track-init", description=__doc__)
    parser.parse_args(argv)
    uri = os.environ.get(URI)
    if uri:
        try:
            if not _is_ready(uri):
                ensure_store()
        except Exception as error:  # the mirror must never harm the workflow
            log.warning(
                "MLflow mirror: %s cannot be used (%s); results are complete without it",
                uri,
                str(error).splitlines()[0],
            )
    return 0


def _is_ready(uri: str) -> bool:
    """Whether a local store has the experiment, found without the seconds that MLflow takes."""
    database = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not database.exists():
        return False
    with contextlib.closing(sqlite3.connect(database)) as store:
        query = "select 1 from experiments where name = ?"
        return bool(store.execute(query, (os.environ.get(EXPERIMENT, "clsp"),)).fetchone())
