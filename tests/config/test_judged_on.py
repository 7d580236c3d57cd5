"""Encoders pretrained on one dataset and judged on another, as on STL-10's unlabelled images."""

import copy

import pytest
from results_tree import TreeBuilder, tiny_params
from tree_params import PARAMS

from clsp.config import plan
from clsp.config.grid import expand_runs
from clsp.config.load import load_params
from clsp.report.collect import build_frame, expected_numbers, frame_csv
from clsp.report.published import PublishedNumbers
from clsp.report.table import build_table, read_frame
from clsp.runtime.errors import ConfigError


def asked(judged_on, **datasets):
    params = copy.deepcopy(PARAMS)
    params["datasets"].update(datasets)
    params["datasets"]["digits"]["judged_on"] = judged_on
    return params


def test_probes_follow_and_training_does_not():
    plain, moved = tiny_params(), load_params(asked("target-mini"))
    before, after = (next(iter(expand_runs(p).values())) for p in (plain, moved))
    assert (after.spec, after.slug) == (before.spec, before.slug)
    assert (before.judged_on, after.judged_on) == ("digits", "target-mini")
    assert [task for task, *_ in expected_numbers(after)["probe-encoder"]] == ["target-mini"] * 4
    assert plan.prepare_job(moved, "digits") == plan.prepare_job(plain, "digits")


def test_the_main_table_says_so(tmp_path):
    params = load_params(asked("target-mini"))
    frame = read_frame(frame_csv(build_frame(params, tmp_path)))
    table = build_table(params, "main", frame, PublishedNumbers({}, {}))
    assert "Encoders pretrained on digits are judged on target-mini." in table.notes
    builder = TreeBuilder(tmp_path / "tree", tiny_params())
    frame = read_frame(frame_csv(build_frame(builder.params, builder.results)))
    plain = build_table(builder.params, "main", frame, PublishedNumbers({}, {}))
    assert not any("judged on" in note for note in plain.notes)


def test_an_unknown_dataset_is_refused():
    with pytest.raises(ConfigError, match=r'datasets.digits.judged_on: unknown dataset "target"'):
        load_params(asked("target"))


@pytest.mark.parametrize("moved", [False, True])
def test_images_of_several_classes_are_refused_on_either_side(moved):
    voc = {"kind": "voc2007", "size": 4, "source": "miniature", "seed": 0}
    params = asked("voc" if moved else None, voc=voc)
    if not moved:
        params["datasets"]["voc"]["judged_on"] = "digits"
        params["runs"]["main"].update(dataset=["voc"], positives=["none"])
    with pytest.raises(ConfigError, match='"voc" of kind voc2007 is multi-label'):
        load_params(params)
