"""Pairs in params.yaml: what is computed in which order, and what is refused before anything runs."""

import copy

import pytest
from results_tree import PAIRED, PARAMS

from clsp.config import plan
from clsp.config.grid import expand_runs
from clsp.config.load import load_params
from clsp.data.check import Counts, find_problems
from clsp.runtime.errors import ConfigError

JUDGE, PUPIL = "digits.tiny.simclr.none.s0", "digits.tiny.simclr.semantic.s0"
GRID = {"dataset": ["digits"], "encoder": ["tiny"], "method": ["simclr"], "seed": [0]}
NEAR = PAIRED["pairs"]["digits.near"]


@pytest.fixture
def data():
    return copy.deepcopy({**PARAMS, **PAIRED})


def add_source(data, name, pairs):
    data["positives"][name] = {"source": "semantic_pairs", "label": f"{name} {{method}}"}
    data["positives"][name]["pairs"] = pairs
    data["runs"][name] = {**GRID, "positives": [name]}


def test_a_run_names_its_pairs_and_others_name_none(data):
    runs = expand_runs(load_params(data))
    assert runs[PUPIL].spec.pairs == "digits.near"
    assert runs[PUPIL].spec.alignment_weight == 1.0
    assert runs[JUDGE].spec.pairs is None
    assert "pairs" not in runs[JUDGE].spec.canonical()


def test_pairs_come_after_their_judge_and_before_their_readers(data):
    data["runs"] = dict(reversed(data["runs"].items()))  # the readers are written first
    jobs = [(job.stage, job.name) for job in plan.expected_jobs(load_params(data))]
    order = [
        jobs.index(job)
        for job in (
            ("prepare-dataset", "digits"),
            ("pretrain-encoder", JUDGE),
            ("mine-pairs", "digits.near"),
            ("pretrain-encoder", PUPIL),
        )
    ]
    assert order == sorted(order)
    assert len(jobs) - len(set(jobs)) == 1  # the second of two shards has the same name


def test_a_chain_of_pairs_is_planned_in_order(data):
    add_source(data, "second", "{dataset}.again")
    data["pairs"]["digits.again"] = {**NEAR, "run": PUPIL}
    params = load_params(data)
    stages = [job.name for job in plan.expected_jobs(params) if job.stage == "mine-pairs"]
    assert stages == plan.pairs_needed(params) == ["digits.near", "digits.again"]
    assert plan.trained(params)["pairs"] == stages


def test_pairs_that_no_run_reads_are_not_mined(data):
    data["pairs"]["spare"] = NEAR
    params = load_params(data)
    assert plan.pairs_needed(params) == ["digits.near"]
    assert "spare" not in [job.name for job in plan.expected_jobs(params)]


def test_a_job_has_the_spec_and_the_code_of_mining(data):
    job = plan.pairs_job(load_params(data), "digits.near")
    assert job.spec == NEAR
    assert len(job.code) == len(plan.bank_job(load_params(data), "digits.mix").code)


def test_more_neighbours_than_images_are_refused_before_training(data):
    data["pairs"]["digits.near"]["neighbours"] = 50
    counts = {"digits": Counts(12, 9, 3, 3, 12)}
    lines = find_problems(load_params(data), 2, counts)
    assert (
        "pairs.digits.near.neighbours: 50 exceeds the 12 training images of dataset digits" in lines
    )


def refused(data, message):
    with pytest.raises(ConfigError, match=message):
        load_params(data)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "dataset",
            "digit",
            r'pairs\.digits\.near\.dataset: unknown dataset "digit" \(did you mean "digits"\?\)',
        ),
        (
            "run",
            JUDGE.replace("s0", "s7"),
            rf'pairs\.digits\.near\.run: no grid expands to a run ".*s7"; nearest .*{JUDGE}',
        ),
        ("run", "no slug", r"pairs\.digits\.near\.run"),
        ("neighbours", 0, r"pairs\.digits\.near\.neighbours.*found 0"),
        ("threshold", 1.5, r"pairs\.digits\.near\.threshold.*1\.5"),
        ("treshold", 0.5, r'unknown key "treshold" \(did you mean "threshold"\?\)'),
    ],
)
def test_entries_that_cannot_be_mined(data, key, value, message):
    data["pairs"]["digits.near"][key] = value
    refused(data, message)


def test_a_source_that_names_no_pairs_or_unknown_ones(data):
    entry = data["positives"]["semantic"]
    entry["pairs"] = "{dataset}.far"
    refused(
        data,
        r'positives\.semantic\.pairs: unknown pairs "digits\.far" '
        r'\(did you mean "digits\.near"\?\); known: digits\.near',
    )
    del data["pairs"]
    refused(data, r'positives\.semantic\.pairs: unknown pairs "digits\.far"; known: none')
    del entry["pairs"]
    refused(data, r'positives\.semantic\.pairs: source "semantic_pairs" needs the name of pairs')


def test_a_source_that_reads_no_pairs(data):
    data["positives"]["none"]["pairs"] = "digits.near"
    refused(data, r'positives\.none\.pairs: source "none" reads no pairs, found "digits\.near"')


def test_pairs_of_another_dataset(data):
    data["pairs"]["digits.near"]["dataset"] = "target-mini"
    refused(
        data,
        r'runs\.semantic: pairs "digits\.near" belong to dataset "target-mini", '
        r'but the runs train on "digits"',
    )


def test_a_run_that_would_judge_its_own_pairs(data):
    data["pairs"]["digits.near"]["run"] = PUPIL
    refused(
        data,
        rf"pairs\.digits\.near\.run: .*wait for each other: pairs digits\.near <- run {PUPIL} "
        r"<- pairs digits\.near$",
    )


def test_a_longer_circle_is_named_link_by_link(data):
    add_source(data, "second", "digits.again")
    data["pairs"]["digits.again"] = {**NEAR, "run": PUPIL}
    other = "digits.tiny.simclr.second.s0"
    data["pairs"]["digits.near"]["run"] = other
    refused(
        data,
        rf"pairs digits\.near <- run {other} <- pairs digits\.again <- run {PUPIL} "
        r"<- pairs digits\.near",
    )


def test_labels_of_the_judge_mark_the_runs_on_its_pairs(data):
    data["positives"]["oracle"] = {"source": "same_class", "label": "oracle {method}"}
    data["runs"]["oracle"] = {**GRID, "positives": ["oracle"]}
    refused(data, r'runs\.oracle: positive source "same_class" uses labels')
    data["comparison"] = {"recipes": "single", "labels": "marked"}
    data["pairs"]["digits.near"]["run"] = "digits.tiny.simclr.oracle.s0.labels"
    runs = expand_runs(load_params(data))
    assert runs[f"{PUPIL}.labels"].label == "SePP-SimCLR [labels]"


def test_groups_are_demanded_of_the_dataset(data):
    data["positives"]["frames"] = {"source": "group", "label": "{method} groups"}
    data["runs"]["frames"] = {**GRID, "positives": ["frames"]}
    refused(
        data,
        r'runs\.frames: positives "frames" \(source "group"\) need group ids, but dataset '
        r'"digits" of kind digits has none',
    )
    folder = {"kind": "image_folder", "size": 4, "root": "somewhere"}
    data["datasets"]["videos"] = folder
    data["runs"]["frames"]["dataset"] = ["videos"]
    refused(
        data, r'dataset "videos" of kind image_folder has none; .* keys groups and group_column'
    )
    data["datasets"]["videos"] = {**folder, "groups": "videos.csv", "group_column": "video"}
    assert "videos.tiny.simclr.frames.s0" in expand_runs(load_params(data))
