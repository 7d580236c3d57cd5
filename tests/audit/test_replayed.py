"""How closely what is computed again has to agree, and what is sampled."""

import numpy as np
import pytest
from faults import Tree
from replaying import StandIn
from results_tree import tiny_params

from clsp.audit.checks.a11_replay import images_differ, losses_differ
from clsp.audit.level import generator_of, reaches, read_nonce
from clsp.audit.replayed import chosen_runs, drawn_again, first_steps
from clsp.audit.replaying import Depth
from clsp.audit.suite import Suite
from clsp.runtime.errors import ConfigError, IncompleteError

STORED = np.random.default_rng(0).integers(0, 250, (8, 16, 16, 3), dtype=np.uint8)


def test_equal_images_pass_everywhere():
    assert images_differ(STORED, STORED.copy(), alike=True) is None
    assert images_differ(STORED, STORED.copy(), alike=False) is None


def test_a_rounding_passes_and_two_levels_do_not():
    off = STORED.copy()
    off[0, 0, 0, 0] += 1
    assert images_differ(STORED, off, alike=True) is None
    off[0, 0, 0, 0] += 1
    assert images_differ(STORED, off, alike=True)


def test_many_roundings_are_another_image():
    assert images_differ(STORED, STORED + 1, alike=True)
    assert images_differ(STORED, STORED + 1, alike=False) is None
    assert images_differ(STORED, STORED + 3, alike=False)


def test_on_another_device_each_has_to_be_nearest_to_its_own():
    """Two nearly equal images that were exchanged are within the mean, but not in place."""
    flat = np.full((2, 4, 4, 3), 100, np.uint8)
    flat[1] += 1
    assert images_differ(flat, flat[::-1], alike=False)


def test_another_shape_is_said():
    assert images_differ(STORED, STORED[:3], alike=True)


LOG = [{"step": n, "loss": 2.0 - n / 10, "lr": 0.1} for n in range(5)]


def test_equal_losses_pass():
    assert losses_differ(LOG, LOG[:3], alike=True) is None


def test_the_last_bit_counts_on_the_same_machine_only():
    close = [{**record, "loss": np.nextafter(record["loss"], 9)} for record in LOG]
    assert losses_differ(LOG, close, alike=True)
    assert losses_differ(LOG, close, alike=False) is None


def test_on_other_hardware_the_first_steps_have_to_be_close():
    late = [*LOG[:3], {**LOG[3], "loss": 9.0}]
    assert losses_differ(LOG, late, alike=False) is None
    early = [{**LOG[0], "loss": 2.1}, *LOG[1:]]
    assert losses_differ(LOG, early, alike=False)


@pytest.mark.parametrize("fresh", [[], [{"step": 77, "loss": 1.0}], [{"step": 0, "lr": 0.1}]])
def test_a_log_that_lacks_what_is_compared_differs(fresh):
    assert losses_differ(LOG, fresh, alike=True)


def test_nonce_and_head_decide_what_is_drawn():
    def drawn(*key):
        return generator_of(*key).integers(1 << 30, size=4).tolist()

    assert drawn("00", "a", "x") == drawn("00", "a", "x")
    assert len({tuple(drawn(*k)) for k in [("00", "a"), ("01", "a"), ("00", "b")]}) == 3
    assert drawn("00", "a", "x") != drawn("00", "a", "y")


def test_a_nonce_is_hexadecimal_and_drawn_where_none_is_given():
    assert read_nonce("AbC") == "abc"
    assert read_nonce(None) != read_nonce(None)
    for wrong in ("", "xyz", "0x1"):
        with pytest.raises(ConfigError, match="--nonce"):
            read_nonce(wrong)


def test_levels_are_ordered():
    assert reaches("L3", "L2") and reaches("L2", "L2") and not reaches("L1", "L2")


def _suite(tree: Tree, replayer, **depth) -> Suite:
    return Suite(
        tiny_params(), tree.results, tree.reports, None, depth=Depth("L3", "00", replayer, **depth)
    )


def test_no_more_runs_are_repeated_than_asked_for(tree: Tree):
    suite = _suite(tree, StandIn(tree), runs=2)
    assert len(chosen_runs(suite)) == 2
    others = [r.slug for r in suite.runs.values() if r not in chosen_runs(suite)]
    assert first_steps(suite, suite.runs[others[0]]) is None


def test_a_replay_that_cannot_be_done_is_said_and_verifies_nothing(tree: Tree):
    class Unable:
        def training(self, *_):
            raise IncompleteError("no GPU here")

        candidates = training

    suite = _suite(tree, Unable())
    assert first_steps(suite, chosen_runs(suite)[0]) == "no GPU here"
    assert drawn_again(suite, "digits.mix") == "no GPU here"


def test_what_was_changed_is_not_computed_with(tree: Tree):
    suite = _suite(tree, StandIn(tree), runs=99)
    run = chosen_runs(suite)[0]
    path = tree.results / "runs" / run.slug / "history.jsonl"
    path.write_text(path.read_text() + " ")
    assert "corrupt" in first_steps(suite, run)
