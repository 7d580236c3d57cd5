"""A clean results tree, mirrored into a real MLflow store, made once for all audit tests."""

import json
import os
import shutil
from functools import cache
from pathlib import Path

import pytest
from faults import Tree
from results_tree import IMPORTED, JUDGED, LABELLED, MEASURED, PAIRED, TreeBuilder, tiny_params

from clsp.config.load import read_yaml
from clsp.config.plan import Job
from clsp.config.schema import Params
from clsp.report import page, published
from clsp.runtime.tracking import flatten

PARSED = cache(read_yaml)


@pytest.fixture(autouse=True)
def parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing the repository's own YAML takes longer than the rest of a tiny audit."""
    for module in (page, published):
        monkeypatch.setattr(module, "read_yaml", PARSED)


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


def _build(base: Path, params: Params) -> Path:
    builder = TreeBuilder(base, params)
    builder.mlflow = _mirror_into(base / "mlflow.db")
    here = Path.cwd()
    os.chdir(base)
    try:
        builder.science()
        builder.report()
    finally:
        os.chdir(here)
    return base


def _copy(original: Path, target: Path) -> Tree:
    """A copy of a tree in another place, with all modification times kept."""
    for name in ("results", "reports"):
        shutil.copytree(original / name, target / name)
    for path in original.glob("mlflow.db*"):
        shutil.copy2(path, target / path.name)
    return Tree(target / "results/tiny", target / "reports/tiny", target / "mlflow.db")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that tests copy; nobody changes it."""
    return _build(tmp_path_factory.mktemp("original"), tiny_params())


@pytest.fixture(scope="session")
def original_paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with mined pairs and runs that train on them."""
    return _build(tmp_path_factory.mktemp("paired"), tiny_params(**PAIRED))


@pytest.fixture(scope="session")
def original_judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by every protocol, with floors and an image that is trained on and tested."""
    return _build(tmp_path_factory.mktemp("judged"), tiny_params(**JUDGED))


@pytest.fixture(scope="session")
def original_imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a denoiser and encoders that were imported, one of them with labels."""
    return _build(tmp_path_factory.mktemp("imported"), tiny_params(**IMPORTED))


@pytest.fixture(scope="session")
def original_measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with banks that are measured."""
    return _build(tmp_path_factory.mktemp("measured"), tiny_params(**MEASURED))


@pytest.fixture(scope="session")
def original_labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same again, with pairs that a run with labels judged, and several recipes."""
    return _build(tmp_path_factory.mktemp("labelled"), tiny_params(**LABELLED))


@pytest.fixture
def tree(original: Path, tmp_path: Path) -> Tree:
    """A copy of the tree that the test may damage."""
    return _copy(original, tmp_path)


@pytest.fixture
def paired_tree(original_paired: Path, tmp_path: Path) -> Tree:
    """A copy of the tree with pairs that the test may damage; audit it with PAIRED."""
    return _copy(original_paired, tmp_path)


@pytest.fixture
def judged_tree(original_judged: Path, tmp_path: Path) -> Tree:
    """A copy of the tree with every protocol that the test may damage; audit it with JUDGED."""
    return _copy(original_judged, tmp_path)


@pytest.fixture
def imported_tree(original_imported: Path, tmp_path: Path) -> Tree:
    """A copy of the tree with imports that the test may damage; audit it with IMPORTED."""
    return _copy(original_imported, tmp_path)


@pytest.fixture
def measured_tree(original_measured: Path, tmp_path: Path) -> Tree:
    """A copy of the tree with measured banks that the test may damage; audit it with MEASURED."""
    return _copy(original_measured, tmp_path)


@pytest.fixture
def labelled_tree(original_labelled: Path, tmp_path: Path) -> Tree:
    """A copy of the tree with labels that the test may damage; audit it with LABELLED."""
    return _copy(original_labelled, tmp_path)
