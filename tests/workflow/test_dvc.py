"""DVC stores and shows; Snakemake decides; neither reruns what a pull brought."""

import json
import shutil

import pytest
from working_copy import ROOT, Suite, made_again

pytestmark = pytest.mark.slow


@pytest.fixture
def pushed(suite, tmp_path):
    """A finished run, recorded with DVC, pushed to a remote and committed."""
    shutil.copytree(
        ROOT / ".dvc", suite.folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp")
    )
    suite.run("dvc", "remote", "add", "-q", "-d", "store", tmp_path / "store")
    suite.run("python", "-m", "clsp", "provenance", "export", "smoke")
    suite.run("python", "-m", "clsp", "snapshot", "--push")
    suite.run("git", "add", "-A")
    suite.run("git", "commit", "-qm", "results")
    return suite


@pytest.fixture
def pulled(pushed, tmp_path):
    """A fresh clone of it after `dvc pull`."""
    pushed.run("git", "clone", "-q", pushed.folder, tmp_path / "clone")
    clone = Suite(tmp_path / "clone")
    clone.run("git", "config", "user.email", "test@example.org")
    clone.run("git", "config", "user.name", "test")
    clone.run("git", "config", "commit.gpgsign", "false")
    clone.run("dvc", "pull", "-q")
    return clone


def _k(suite):
    path = next((suite.folder / "results/smoke/evaluations/probe").glob("*/knn.json"))
    results = json.loads(path.read_text())["results"]
    return {result["selection"]["k"] for result in results if not result["variant"]}


def test_after_a_pull_neither_tool_reruns_anything(pulled):
    assert pulled.planned() == {}
    before = pulled.manifests()
    done = pulled.run("dvc", "repro")
    assert "Running stage" not in done.stdout
    assert made_again(before, pulled.manifests()) == {}
    assert "linear" in pulled.run("dvc", "metrics", "show", "--json").stdout
    assert "main.csv" in pulled.run("dvc", "plots", "show", "--json").stdout
    audit = ("python", "-m", "clsp", "audit")
    done = pulled.run(*audit, check=False)
    assert done.returncode == 3, done.stdout + done.stderr  # MLflow's store stays where it was
    assert "--without-mlflow" in done.stderr
    done = pulled.run(*audit, "--without-mlflow", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_after_a_changed_parameter_both_run_the_same_jobs(pulled):
    before = pulled.manifests()
    pulled.params(lambda p: p["evaluation"]["knn"].update(k=10))
    # Which sets are compared follows from all parameters; comparing them takes a moment.
    assert pulled.planned("evaluate") == {"probe_encoder": 4, "count_duplicates": 1}
    pulled.run("dvc", "repro")
    again = {p for p, uid in pulled.manifests().items() if before.get(p) != uid}
    assert sorted(path.split("/evaluations/")[1].split("/")[0] for path in again) == [
        "duplicates",
        *["probe"] * 4,
    ]
    assert _k(pulled) == {10}
    assert pulled.planned() == {}


def test_an_experiment_in_its_own_workspace_measures_what_it_says(pushed):
    """The trap of a workspace without Snakemake's records: new parameters, old numbers, code 0."""
    assert _k(pushed) == {20}
    pushed.run("dvc", "exp", "run", "--temp", "--name", "ten", "-S", "evaluation.knn.k=10")
    pushed.run("dvc", "exp", "apply", "ten")
    assert _k(pushed) == {10}
    assert pushed.planned() == {}


def test_outputs_that_are_links_are_refused(suite, tmp_path):
    card = suite.folder / "results/smoke/data/prepared/digits/card.json"
    shutil.move(card, tmp_path / "card.json")
    card.symlink_to(tmp_path / "card.json")
    done = suite.run("snakemake", "-n", check=False)
    assert done.returncode == 4
    assert "cache.type reflink,copy" in done.stdout + done.stderr
