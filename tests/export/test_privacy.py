"""Absolute paths are cut down to their last part; nothing else is touched."""

import pytest

from clsp.export.privacy import names_machine, public
from clsp.runtime.places import names_places, without_places

PATHS = [
    "/home/alice/data/images.npy",
    "/Users/alice/x",
    "C:\\Users\\alice\\x.npy",
    "file:///scratch/alice/x",
    "/root/.cache/torch",
    "/mnt/disk/a",
    "/home/alice",
    "C:\\Users\\alice",
]
KEPT = [
    "results/demo/data/prepared/digits/card.json",
    "https://archive.ics.uci.edu/dataset/80",
    "https://example.org/home/page",
    "text/html",
    "</data><run/>",
    "1/10",
    "an image of 8 x 8 / 64",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("around", ["{}", "error: {}: corrupt", '{{"path":"{}"}}', "({})"])
def test_paths_are_cut(path, around, tmp_path):
    shown = without_places(around.format(path))
    assert "alice" not in shown
    assert "/home/" not in shown
    assert shown != around.format(path)
    (tmp_path / "text").write_text(around.format(path))
    assert names_machine(tmp_path / "text")


@pytest.mark.parametrize("text", KEPT)
def test_other_texts_are_left_alone(text, tmp_path):
    assert without_places(text) == text
    (tmp_path / "text").write_text(text)
    assert not names_machine(tmp_path / "text")


def test_values_are_searched_to_the_bottom():
    value = {"a": ["/home/alice/x", 1, None], "b": {"/tmp/y": True}}
    shown = public(value)
    assert "alice" not in str(shown)
    assert "/tmp" not in str(shown)
    assert shown["a"][1:] == [1, None]
    assert "alice" not in str(public({"root": "/cephfs/alice/images"}))  # of no known root


def test_any_path_between_quotes_and_the_own_folders_are_found(tmp_path, monkeypatch):
    assert "alice" not in without_places('{"path":"/cephfs/alice/images.npy"}')
    monkeypatch.setenv("HOME", "/people/alice")
    assert "alice" not in without_places("/people/alice/x: corrupt")
    (tmp_path / "text").write_text("see /people/alice")
    assert names_machine(tmp_path / "text")
    assert without_places("see /people/alice.") == "see ...."
    assert not names_places("base64,+/people/alice/9j")
    assert without_places("/people/alice2/x") == ".../x"
