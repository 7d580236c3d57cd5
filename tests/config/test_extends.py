"""`extends`: one file or several, merged from left to right, the file itself on top."""

import pytest

from clsp.config.load import resolve_base
from clsp.runtime.errors import ConfigError


def _written(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return {name: f"{folder}/{name}.yaml" for name in files}


def test_one_file_may_stand_without_a_list(tmp_path):
    at = _written(tmp_path, base="a: 1\nb: {x: 1, y: 2}\n")
    for extends in (at["base"], [at["base"]]):
        assert resolve_base({"extends": extends, "b": {"y": 3}}, "f") == {
            "a": 1,
            "b": {"x": 1, "y": 3},
        }


def test_later_files_win_over_earlier_ones_and_the_file_over_all(tmp_path):
    at = _written(
        tmp_path, left="a: 1\nb: {x: 1, y: 1, z: 1}\n", right="b: {y: 2, z: 2}\nlist: [1, 2]\n"
    )
    found = resolve_base({"extends": [at["left"], at["right"]], "b": {"z": 3}, "list": [3]}, "f")
    assert found == {"a": 1, "b": {"x": 1, "y": 2, "z": 3}, "list": [3]}
    turned = resolve_base({"extends": [at["right"], at["left"]]}, "f")
    assert turned["b"] == {"x": 1, "y": 1, "z": 1}


def test_two_files_may_extend_the_same_third(tmp_path):
    at = _written(tmp_path, root="a: 1\n")
    at |= _written(
        tmp_path, left=f"extends: {at['root']}\nb: 2\n", right=f"extends: {at['root']}\nc: 3\n"
    )
    assert resolve_base({"extends": [at["left"], at["right"]]}, "f") == {"a": 1, "b": 2, "c": 3}


def test_null_removes_what_the_base_has_and_nothing_else(tmp_path):
    at = _written(tmp_path, base="runs: {main: {seed: [0]}, more: {seed: [1]}}\nfigures: [a]\n")
    found = resolve_base({"extends": at["base"], "runs": {"main": None}, "typo": None}, "f")
    assert found == {"runs": {"more": {"seed": [1]}}, "figures": ["a"], "typo": None}


def test_a_circle_through_the_second_file_of_a_list_is_refused(tmp_path):
    at = _written(tmp_path, plain="a: 1\n")
    one, two = f"{tmp_path}/one.yaml", f"{tmp_path}/two.yaml"
    _written(
        tmp_path,
        one=f"extends: [{at['plain']}, {two}]\n",
        two=f"extends: {one}\n",
    )
    with pytest.raises(ConfigError, match=r"two\.yaml: extends: circle .*one\.yaml -> .*two\.yaml"):
        resolve_base({"extends": [at["plain"], one]}, "f")


@pytest.mark.parametrize("extends", [[], [5], None, {"a": 1}, ["x.yaml", None], ""])
def test_anything_but_file_names_is_refused(extends):
    with pytest.raises(
        ConfigError, match=r"mine\.yaml: extends: expected a file or a list of files"
    ):
        resolve_base({"extends": extends}, "mine.yaml")


def test_a_file_named_twice_is_refused(tmp_path):
    at = _written(tmp_path, base="a: 1\n")
    with pytest.raises(ConfigError, match=r'base\.yaml" is given twice'):
        resolve_base({"extends": [at["base"], at["base"]]}, "f")


@pytest.mark.parametrize("text", ["", "- a\n", "word\n"])
def test_a_base_that_is_no_mapping_is_refused(tmp_path, text):
    at = _written(tmp_path, base=text)
    with pytest.raises(ConfigError, match=r"base\.yaml: expected a mapping"):
        resolve_base({"extends": at["base"], "a": 1}, "f")
