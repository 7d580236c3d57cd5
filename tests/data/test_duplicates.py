"""Duplicates are found by content, at any size, and in synthetic candidates; nothing else is."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_tree import PARAMS, TreeBuilder, tiny_params

from clsp.data.duplicates import Comparison, Images, compare_what, count_duplicates, match
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact


def _images(source: list[str], stored: list[str], size: int = 4) -> Images:
    rows = list(range(len(source)))
    return Images([f"{row}.png" for row in rows], rows, source, stored, size)


def test_an_image_matches_at_its_own_resolution_whatever_the_size() -> None:
    trained = _images(["aa", "bb"], ["11", "22"], size=32)
    tested = _images(["cc", "bb"], ["33", "44"], size=64)
    assert list(match(trained, tested)) == [(1, 1)]


def test_fitted_pixels_match_only_where_both_have_one_size() -> None:
    trained = _images(["aa"], ["11"])
    assert list(match(trained, _images(["bb"], ["11"]))) == [(0, 0)]
    assert list(match(trained, _images(["bb"], ["11"], size=8))) == []


def test_every_test_image_counts_once_and_the_first_duplicate_is_named() -> None:
    trained = _images(["aa", "aa", "bb"], ["11", "11", "22"])
    tested = _images(["aa", "aa", "dd"], ["11", "11", "44"])
    assert list(match(trained, tested)) == [(0, 0), (0, 1)]


def test_nothing_trained_on_has_no_duplicates() -> None:
    assert list(match(_images([], []), _images(["aa"], ["11"]))) == []


def test_candidates_match_by_the_digits_their_index_holds() -> None:
    bank = _images(["0123456789abcdef"], ["0123456789abcdef"])
    whole = "0123456789abcdef" + "7" * 16
    assert list(match(bank, _images([whole], ["9" * 32], size=8))) == [(0, 0)]
    assert list(match(bank, _images(["9" * 32], [whole]))) == [(0, 0)]
    assert list(match(bank, _images(["9" * 32], [whole], size=8))) == []


def test_everything_trained_on_is_compared_with_everything_tested_on() -> None:
    found = {(c.kind, c.trained_on, c.tested) for c in compare_what(tiny_params())}
    assert found == {
        ("dataset", "digits/train", "digits"),
        ("dataset", "digits/train", "target-mini"),
        ("bank", "digits.mix", "digits"),
        ("bank", "digits.mix", "target-mini"),
        ("task", "target-mini/train+val", "target-mini"),
    }


def test_the_data_behind_a_bank_counts_as_trained_on() -> None:
    denoisers = {"digits": {**PARAMS["denoisers"]["digits"], "dataset": "target-mini"}}
    found = compare_what(tiny_params(denoisers=denoisers))
    assert Comparison("dataset", "target-mini", ("train",), "digits") in found


class Tree:
    """Prepared datasets and a bank of the tiny tree, and the stage over them."""

    def __init__(self, base: Path) -> None:
        self.builder = TreeBuilder(base, tiny_params())
        self.data = {name: self.builder.dataset(name) for name in ("digits", "target-mini")}
        denoiser = self.builder.denoiser("digits", self.data["digits"])
        self.bank = self.builder.bank("digits.mix", denoiser, self.data["digits"])
        self.out = base / "duplicates.json"

    def lines(self, name: str) -> list[str]:
        return (self.data[name].folder / "items.csv").read_text().splitlines()

    def rewrite(self, name: str, lines: list[str]) -> None:
        (self.data[name].folder / "items.csv").write_text("\n".join([*lines, ""]))

    def count(self, datasets: list[Artefact] | None = None) -> dict[tuple[str, str], Any]:
        given = [*self.data.values()] if datasets is None else datasets
        self.outcome = count_duplicates(self.builder.params, given, [self.bank], self.out)
        record = json.loads(self.out.read_text())
        assert record["schema_version"] == 1
        return {(p["trained_on"], p["tested_on"]): p for p in record["pairs"]}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.chdir(tmp_path)
    return Tree(tmp_path)


def test_disjoint_sets_have_none(tree: Tree) -> None:
    found = tree.count()
    assert len(found) == 5
    assert {pair["duplicates"] for pair in found.values()} == {0}
    assert {pair["images"] for pair in found.values()} == {9}
    assert tree.outcome.counters == {"comparisons": 5, "duplicates": 0, "affected": 0}


def test_copied_image_is_counted_and_named(tree: Tree) -> None:
    mine, theirs = tree.lines("digits"), tree.lines("target-mini")
    source = mine[3].split(",")[3]  # row 2
    fields = theirs[15].split(",")  # row 14
    tree.rewrite(
        "target-mini", [*theirs[:15], ",".join([*fields[:3], source, fields[4]]), *theirs[16:]]
    )
    found = tree.count()
    pair = found.pop(("digits/train", "target-mini/test"))
    assert (pair["kind"], pair["duplicates"], pair["trained_images"]) == ("dataset", 1, 12)
    assert pair["examples"] == [{"names": ["train/2.png", "test/14.png"], "rows": [2, 14]}]
    assert {other["duplicates"] for other in found.values()} == {0}
    assert tree.outcome.counters["affected"] == 1


def test_training_image_that_is_tested_too_is_counted(tree: Tree) -> None:
    lines = tree.lines("digits")
    digests = lines[1].split(",")[3:]
    copies = [",".join([*line.split(",")[:3], *digests]) for line in lines[13:20]]
    tree.rewrite("digits", [*lines[:13], *copies, *lines[20:]])
    pair = tree.count()[("digits/train", "digits/test")]
    assert pair["duplicates"] == 7
    assert [example["rows"] for example in pair["examples"]] == [[0, row] for row in range(12, 17)]


def test_candidate_that_is_a_test_image_is_counted(tree: Tree) -> None:
    candidate = np.load(tree.bank.folder / "images.npy")[3, 1]
    digest = hashlib.sha256(candidate.tobytes()).hexdigest()[:32]
    lines = tree.lines("digits")
    fields = lines[20].split(",")
    tree.rewrite("digits", [*lines[:20], ",".join([*fields[:4], digest]), *lines[21:]])
    pair = tree.count()[("digits.mix", "digits/test")]
    assert (pair["kind"], pair["duplicates"]) == ("bank", 1)
    assert pair["examples"] == [
        {"names": ["anchor 3, candidate 1", "test/19.png"], "rows": [3 * 2 + 1, 19]}
    ]


def test_missing_dataset_is_named(tree: Tree) -> None:
    with pytest.raises(ConfigError, match="--datasets: target-mini not among those given"):
        tree.count([tree.data["digits"]])


def test_missing_bank_is_named(tree: Tree) -> None:
    with pytest.raises(ConfigError, match=r"--banks: digits\.mix not among those given"):
        count_duplicates(tree.builder.params, [*tree.data.values()], [], tree.out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], r"8 images of test, the card says 9"),
        (lambda lines: ["split,name,label", *lines[1:]], r"not a readable list .*'source'"),
        (lambda lines: lines[:1], r"0 images of train, the card says 12"),
    ],
)
def test_list_that_does_not_fit_is_named(change: Any, message: str, tree: Tree) -> None:
    tree.rewrite("digits", change(tree.lines("digits")))
    with pytest.raises(DataError, match=rf"digits/items\.csv: {message}"):
        tree.count()


def test_damaged_card_is_named(tree: Tree) -> None:
    (tree.data["digits"].folder / "card.json").write_text('{"splits": {}}')
    with pytest.raises(DataError, match=r"card\.json: gives no size and splits"):
        tree.count()
