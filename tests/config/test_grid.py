from collections import Counter
from pathlib import Path

import pytest

from clsp.config import plan
from clsp.config.grid import expand_runs
from clsp.config.load import load_params, read_yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo():
    return load_params(read_yaml(ROOT / "params.yaml"))


@pytest.fixture(scope="module")
def cifar():
    return load_params(read_yaml(ROOT / "configs" / "cifar.yaml"))


def test_the_demo_compares_five_methods_with_three_seeds(demo):
    runs = expand_runs(demo).values()
    assert Counter(run.label for run in runs) == {
        "SimCLR": 3,
        "SimCLR-aug": 3,
        "CLSP-SimCLR": 3,
        "MoCo v2+": 3,
        "CLSP-MoCo v2+": 3,
    }
    assert len(demo.evaluation.transfer.datasets) == 8
    assert all(name.endswith("-mini") for name in demo.evaluation.transfer.datasets)


def test_the_paper_grid_has_the_authors_values(cifar):
    runs = expand_runs(cifar)
    assert len(runs) == 2 * 2 * 2 * 3 * 5
    simclr = runs["cifar10.resnet18.simclr.synthetic.s0"].spec
    assert (simclr.recipe.batch_size, simclr.recipe.learning_rate) == (1024, 0.5)
    assert (simclr.alignment_weight, simclr.recipe.epochs) == (1.0, 1000)
    assert simclr.bank == "cifar10.mix"
    moco = runs["cifar100.resnet50.moco.synthetic.s4"]
    assert (moco.spec.recipe.batch_size, moco.spec.recipe.learning_rate) == (512, 0.3)
    assert moco.spec.alignment_weight == 0.2
    assert moco.spec.recipe.views.jitter.saturation == 0.2
    assert moco.spec.recipe.views.solarize == 0.2
    assert moco.probe.linear.learning_rate == 10.0
    assert runs["cifar100.resnet50.moco.none.s4"].probe.linear.learning_rate == 1.0
    assert runs["cifar10.resnet18.moco.synthetic.s0"].spec.alignment_weight == 0.5


def test_a_run_without_positives_has_no_alignment_term(demo):
    spec = expand_runs(demo)["digits.tiny.simclr.none.s0"].spec
    assert spec.alignment_weight == 0
    assert spec.bank is None
    assert "bank" not in spec.canonical()


def test_grids_that_meet_share_their_runs(demo):
    runs = dict(demo.runs, again=demo.runs["simclr"])
    doubled = demo.model_copy(update={"runs": runs})
    assert list(expand_runs(doubled)) == list(expand_runs(demo))


def test_expected_jobs_count_every_stage(demo):
    counts = Counter(job.stage for job in plan.expected_jobs(demo))
    assert counts == {
        "fetch-dataset": 8,
        "prepare-dataset": 9,
        "train-denoiser": 1,
        "generate-shard": 3 * demo.shards,
        "gather-bank": 3,
        "measure-bank": 3,
        "pretrain-encoder": 15,
        "count-duplicates": 1,
        "extract-features": 19,
        "probe-encoder": 15,
        "probe-transfer": 19,
        "probe-few-shot": 19,
    }


def test_the_machine_is_no_part_of_a_reports_spec(demo):
    moved = demo.model_copy(update={"device": "cuda", "tracking": False, "shards": 7})
    assert plan.report_params(moved) == plan.report_params(demo)
