"""A run whose positives are pairs that an earlier run's encoder judged, as a user runs it."""

import csv
import json

import pytest

pytestmark = pytest.mark.slow

JUDGE = "digits.tiny.simclr.none.s0"
PUPIL = "digits.tiny.simclr.semantic.s0"


def chained(params):
    """Two runs, one of them on pairs mined from the other, and nothing else."""
    params["datasets"] = {"digits": {**params["datasets"]["digits"], "limit": 200}}
    params["denoisers"], params["banks"] = {}, {}
    params["methods"] = {"simclr": params["methods"]["simclr"]}
    params["positives"] = {
        "none": {"label": "{method}"},
        "semantic": {
            "source": "semantic_pairs",
            "label": "SePP-{method}",
            "pairs": "{dataset}.near",
        },
    }
    params["pairs"] = {
        "digits.near": {"dataset": "digits", "run": JUDGE, "neighbours": 3, "threshold": 0.5}
    }
    only = params["runs"]["all"]
    params["runs"] = {"all": {**only, "method": ["simclr"], "positives": ["semantic", "none"]}}
    params["evaluation"]["transfer"], params["quality"] = None, None
    params["tables"], params["figures"] = ["main"], []


def test_pairs_are_mined_between_two_runs_and_audited(fresh):
    fresh.params(chained)
    assert fresh.planned("mining") == {
        "prepare_dataset": 1,
        "check_data": 1,
        "pretrain_encoder": 1,
        "mine_pairs": 1,
    }
    fresh.run("snakemake", "--cores", "2")
    results = fresh.folder / "results/smoke"
    read = json.loads((results / f"runs/{PUPIL}/manifest.json").read_text())
    used = [d["uri"] for d in read["predicate"]["resolvedDependencies"]]
    assert "results/smoke/pairs/digits.near/pairs.npy" in used
    mined = json.loads((results / "pairs/digits.near/manifest.json").read_text())["predicate"]
    assert mined["metrics"]["pairs/count"] == mined["counters"]["pairs"] > 0
    assert mined["mlflow_run_id"]
    rows = list(csv.DictReader((fresh.folder / "reports/smoke/frame.csv").open()))
    assert {row["label"] for row in rows if row["status"] == "done"} == {"SimCLR", "SePP-SimCLR"}
    assert "Pairs digits.near" in (fresh.folder / "reports/smoke/report.html").read_text()
    audit = json.loads((fresh.folder / "reports/smoke/audit.json").read_text())
    wrong = [found for found in audit["findings"] if found["severity"] != "badge"]
    assert (audit["verdict"], wrong) == ("verified", [])
    fresh.params(lambda p: p["pairs"]["digits.near"].update(neighbours=2))
    assert fresh.planned("pretrain") == {"mine_pairs": 1, "pretrain_encoder": 1}
