"""Dry runs: exact job counts, for the demo and at the paper's scale."""

import time

import pytest
from working_copy import ROOT, copy_suite

from clsp.config.load import read_yaml

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The suite with the shipped params.yaml. Dry runs leave it as it is."""
    suite = copy_suite(tmp_path_factory.mktemp("whole") / "suite")
    (suite.folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return suite


def test_the_demo_plans_every_stage(whole):
    shards = read_yaml(ROOT / "params.yaml")["shards"]
    expected = {
        "fetch_dataset": 8,
        "prepare_dataset": 9,
        "check_data": 1,
        "train_denoiser": 1,
        "generate_shard": 3 * shards,  # two banks are measured that no run reads
        "gather_bank": 3,
        "pretrain_encoder": 15,
        "extract_features": 19,
        "probe_encoder": 15,
        "probe_transfer": 19,
        "probe_few_shot": 19,
        "measure_bank": 3,
        "count_duplicates": 1,
        "collect_results": 1,
        "judge_claims": 1,
        "render_table": 4,
        "render_figure": 9,
        "render_report": 1,
        "audit_suite": 1,
    }
    assert whole.planned() == expected
    assert whole.planned("--cores", "all") == expected


def test_the_paper_grid_is_planned_without_gpu_or_data(whole):
    started = time.monotonic()
    planned = whole.planned("--configfile", "configs/cifar.yaml")
    assert time.monotonic() - started < 60  # a hang, not a speed
    assert planned == {
        "fetch_dataset": 8,
        "prepare_dataset": 8,
        "check_data": 1,
        "train_denoiser": 2,
        "generate_shard": 32,
        "gather_bank": 2,
        "pretrain_encoder": 120,
        "extract_features": 144,
        "probe_encoder": 120,
        "probe_transfer": 144,
        "probe_few_shot": 144,
        "count_duplicates": 1,
        "collect_results": 1,
        "judge_claims": 1,
        "render_table": 4,
        "render_figure": 8,
        "render_report": 1,
        "audit_suite": 1,
    }


@pytest.mark.parametrize(
    ("target", "last"),
    [
        ("data", "prepare_dataset"),
        ("diffusion", "train_denoiser"),
        ("synthesis", "gather_bank"),
        ("pretrain", "pretrain_encoder"),
        ("evaluate", "probe_transfer"),
        ("tables", "render_table"),
        ("report", "render_report"),
    ],
)
def test_every_phase_is_a_target(whole, target, last):
    planned = whole.planned(target)
    assert last in planned
    assert "audit_suite" not in planned
