"""A clean results tree, mirrored into a real MLflow store, made once for all audit tests."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import Tree
from results_tree import TreeBuilder, tiny_params

from clsp.config.plan import Job
from clsp.runtime.tracking import flatten


def _mirror_into(store: Path):
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
        params = [Param(key, value) for key, value in flatten(job.spec).items()]
        client.log_batch(run, [*points, *shown], params)
        client.set_terminated(run, "FINISHED")
        return run

    return log


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tree that tests copy; nobody changes it."""
    base = tmp_path_factory.mktemp("original")
    builder = TreeBuilder(base, tiny_params())
    builder.mlflow = _mirror_into(base / "mlflow.db")
    here = Path.cwd()
    os.chdir(base)
    try:
        builder.science()
        builder.report()
    finally:
        os.chdir(here)
    yield base


@pytest.fixture
def tree(original: Path, tmp_path: Path) -> Tree:
    """A copy of the tree in another place, with all modification times kept."""
    for name in ("results", "reports"):
        shutil.copytree(original / name, tmp_path / name)
    for path in original.glob("mlflow.db*"):
        shutil.copy2(path, tmp_path / path.name)
    return Tree(tmp_path / "results/tiny", tmp_path / "reports/tiny", tmp_path / "mlflow.db")
