"""Makes results trees of every kind, with or without an MLflow store, and copies them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from injecting import Tree
from results_tree import (
    IMPORTED,
    JUDGED,
    LABELLED,
    MEASURED,
    PAIRED,
    TAUGHT,
    TreeBuilder,
)

from clsp.config.plan import Job
from clsp.config.schema import Params
from clsp.runtime.tracking import parameters

CHANGES: dict[str, dict[str, Any]] = {  # kind of tree -> what it is asked for beyond PARAMS
    "": {},
    "paired": PAIRED,
    "judged": JUDGED,
    "imported": IMPORTED,
    "measured": MEASURED,
    "taught": TAUGHT,
    "labelled": LABELLED,
}


def mirror_into(store: Path) -> Callable[[Job, dict[str, float], str], str]:
    """What mirrors jobs into a new store, as TreeBuilder.mlflow takes it."""
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store}")
    experiment = client.create_experiment("tiny", str(store.parent / "mlartifacts"))

    def log(job: Job, metrics: dict[str, float], history: str) -> str:
        run = client.create_run(experiment, run_name=f"{job.stage} {job.name}").info.run_id
        last = {record["epoch"]: record for record in map(json.loads, history.splitlines())}
        points = [
            Metric(f"history/{key}", value, 1, record["step"])
            for record in last.values()
            for key, value in record.items()
            if key != "step"
        ]
        shown = [Metric(key, value, 1, 0) for key, value in metrics.items()]
        params = [Param(key, value) for key, value in parameters(job.spec).items()]
        client.log_batch(run, [*points, *shown], params)
        client.set_terminated(run, "FINISHED")
        return run

    return log


def build(base: Path, params: Params, mirrored: bool = True) -> Path:
    """Make a tree below a folder, mirrored into a real MLflow store beside it if asked."""
    builder = TreeBuilder(base, params)
    if mirrored:
        builder.mlflow = mirror_into(base / "mlflow.db")
    builder.everything()
    return base


def copy_tree(original: Path, target: Path) -> Tree:
    """A copy of a tree in another place, with all modification times kept."""
    for name in ("results", "reports"):
        shutil.copytree(original / name, target / name)
    for path in original.glob("mlflow.db*"):
        shutil.copy2(path, target / path.name)
    store = target / "mlflow.db"
    store = store if store.exists() else None
    return Tree(target / "results/tiny", target / "reports/tiny", store)
