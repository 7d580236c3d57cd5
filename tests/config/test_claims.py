"""The claims file: what it says, and that every wrong key is named."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from results_tree import REPO

from clsp.config.claims import Difference, read_claims
from clsp.config.convergence import read_curves, read_explanations
from clsp.runtime.errors import ConfigError

FILE = REPO / "reports/spec/claims.yaml"


@pytest.fixture
def data() -> dict[str, Any]:
    return copy.deepcopy(yaml.safe_load(FILE.read_text()))


def refused(data: dict[str, Any], tmp_path: Path, message: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=message):
        read_claims(path)


def test_the_paper_s_claims_are_all_there() -> None:
    claims = {claim.id: claim for claim in read_claims(FILE).claims}
    assert list(claims) == ["C1", "C1b", "C2", "C2b", "C2m", "C3", "C4", "C5", "C6"]
    margins = {n: c.margin for n, c in claims.items() if isinstance(c, Difference)}
    assert margins == {"C1": 2.0, "C1b": 2.0, "C2": 1.0, "C2b": 1.0, "C4": 0.0, "C5": 0.0}
    assert (claims["C3"].at_least, claims["C3"].among) == (6, 8)
    assert all(c.seeds == (0, 1, 2, 3, 4) for c in claims.values() if hasattr(c, "seeds"))
    assert [entry.value for entry in claims["C2b"].published] == [0.24, 0.16]
    assert all(entry.protocol_mismatch for entry in claims["C1"].published)


def test_an_unknown_key_is_named(data: dict[str, Any], tmp_path: Path) -> None:
    data["claims"][0]["margni"] = 1
    refused(data, tmp_path, r'claims\.0.*unknown key "margni" .did you mean "margin"')


def test_wrong_values_are_named(data: dict[str, Any], tmp_path: Path) -> None:
    for change, message in (
        ({"margin": float("nan")}, "margin"),
        ({"relation": "=="}, "relation"),
        ({"seeds": [0, 1]}, "seeds"),
        ({"seeds": [0, 1, 1]}, 'seeds.*"1" is given twice'),
        ({"test": {"kind": "bootstrap", "side": "lower", "level": 0.95}}, "test.kind"),
        ({"test": {"kind": "paired_t", "side": "lower", "level": 0.4}}, "test.level"),
        ({"tolerance": {"cifar100": {"tau": 1, "source": "x"}}}, 'nothing for dataset "cifar10"'),
        ({"kind": "differnce"}, "kind"),
        ({"id": "first"}, "id"),
    ):
        changed = copy.deepcopy(data)
        changed["claims"][0] |= change
        refused(changed, tmp_path, message)


def test_published_arithmetic_has_to_add_up(data: dict[str, Any], tmp_path: Path) -> None:
    data["claims"][0]["published"][0]["value"] = 3.57
    refused(data, tmp_path, r"published\.0.*left - right = 2.57, found 3.57")


def test_ids_are_distinct_and_references_exist(data: dict[str, Any], tmp_path: Path) -> None:
    twice = copy.deepcopy(data)
    twice["claims"][1]["id"] = "C1"
    refused(twice, tmp_path, 'id "C1" is given twice')
    data["claims"][4]["claim"] = "C9"
    refused(data, tmp_path, 'C2m: claim: "C9" is no difference')


def test_fewer_than_three_seeds_cannot_be_asked_for(data: dict[str, Any], tmp_path: Path) -> None:
    data["minimum_seeds"] = 2
    refused(data, tmp_path, "minimum_seeds")


def test_authors_curves_are_those_of_the_release() -> None:
    curves = read_curves(FILE.with_name("official_curves.json"))
    found = {(c.dataset, c.architecture, c.method, c.positives): c for c in curves.runs}
    assert len(found) == len(curves.runs) == 18
    assert found["cifar10", "resnet18", "simclr", "bank"].accuracy[-1] == (1000, 94.45)
    assert found["cifar100", "resnet50", "moco", "none"].accuracy[-1] == (1000, 72.68)
    assert [curves.tau("cifar10", e) for e in (100, 400, 600, 1000)] == [3.0, 1.2, 0.6, 0.6]
    assert [curves.tau("cifar100", e) for e in (399, 599, 601)] == [5.0, 2.0, 1.0]


def test_an_explanation_needs_a_reason(tmp_path: Path) -> None:
    assert read_explanations(FILE.with_name("explanations.yaml")).explanations == ()
    path = tmp_path / "explanations.yaml"
    entry = {"dataset": "cifar10", "architecture": "resnet18", "label": "SimCLR", "found": 95.0}
    path.write_text(
        yaml.safe_dump({"explanations": [{**entry, "by": "me", "date": "x", "reason": "ok"}]})
    )
    with pytest.raises(ConfigError, match=r"explanations\.0\.reason"):
        read_explanations(path)
