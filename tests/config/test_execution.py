"""`execution:` of params.yaml: a mode by its name, or the switches one by one."""

import pytest
from results_tree import tiny_params

from clsp.config.execution import EXACT, MODES, departures, switches
from clsp.config.grid import expand_runs
from clsp.config.schema import Params, RunSpec
from clsp.runtime.errors import ConfigError


def specs(params: Params) -> list[RunSpec]:
    return [run.spec for run in expand_runs(params).values()]


@pytest.mark.parametrize("given", ["exact", EXACT.canonical(), None])
def test_exact_leaves_every_spec_as_it_was(given: object) -> None:
    plain = [spec.canonical() for spec in specs(tiny_params())]
    found = specs(tiny_params(execution=given))
    assert [spec.canonical() for spec in found] == plain
    assert all("execution" not in spec for spec in plain)
    assert switches(found[0].execution) == EXACT


def test_fast_is_part_of_every_spec() -> None:
    (first, *_) = specs(tiny_params(execution="fast"))
    assert first.execution == MODES["fast"]
    assert first.canonical()["execution"]["precision"] == "bf16"


def test_switches_can_be_set_one_by_one() -> None:
    given = {**EXACT.canonical(), "views": "torchvision"}
    (first, *_) = specs(tiny_params(execution=given))
    assert switches(first.execution).views == "torchvision"
    assert departures(first.execution) == "views by torchvision's own classes"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("quick", "expected exact, fast or the switches, found 'quick'"),
        ({**EXACT.canonical(), "precision": "fp16"}, "execution.precision"),
        ({"precision": "bf16"}, "execution.compile"),
        ({**EXACT.canonical(), "graphs": True}, 'execution: unknown key "graphs"'),
    ],
)
def test_anything_else_is_refused(given: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        tiny_params(execution=given)
