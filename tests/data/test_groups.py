"""Group ids beside an image folder: what is read, what follows the rows, what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from clsp.config.schema import DatasetSpec
from clsp.config.strict import parse
from clsp.data import fingerprint as module
from clsp.data.fingerprint import fingerprint
from clsp.data.prepare import prepare_dataset
from clsp.data.prepared import Prepared
from clsp.pretrain.anchors import load_anchors
from clsp.runtime.canonical import read_json
from clsp.runtime.errors import ConfigError, DataError

IMAGES = [f"train/{name}/{number}.png" for name in ("cat", "dog") for number in range(4)]
VIDEOS = ["b", "a", "b", "", "c", "a", "c", "c"]
NUMBERS = [1, 0, 1, -1, 2, 0, 2, 2]


def lines_of(videos=VIDEOS):
    return [f"{image},{video},x" for image, video in zip(IMAGES, videos, strict=True)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache" / "fingerprints.json")


@pytest.fixture
def root(tmp_path):
    """Eight training images whose colour is their number, and two for testing."""
    folder = tmp_path / "mine"
    for number, name in enumerate([*IMAGES, "test/cat/0.png", "test/dog/0.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 6, 3), 20 * number, np.uint8)).save(folder / name)
    return folder


def write(root, lines, header="path,video,note", name="groups.csv", encoding="utf-8"):
    (root / name).write_text("\n".join([header, *lines, ""]), encoding=encoding)


def spec_of(root, **fields):
    entry = {"kind": "image_folder", "size": 6, "root": str(root)}
    entry |= {"groups": "groups.csv", "group_column": "video", **fields}
    return parse(DatasetSpec, {k: v for k, v in entry.items() if v is not None}, "datasets.mine")


def prepare(root, tmp_path, **fields):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    paths = [out / name for name in ("images.npy", "labels.npy", "items.csv", "card.json")]
    prepare_dataset(spec_of(root, **fields), [], *paths)
    return Prepared(np.load(paths[0]), np.load(paths[1]), read_json(paths[3]))


def test_numbers_follow_the_rows_whatever_the_order_of_lines(root, tmp_path):
    write(root, lines_of()[::-1])
    made = prepare(root, tmp_path)
    assert made.groups.dtype == np.int64
    assert made.groups.tolist() == NUMBERS
    assert made.card["group_count"] == 3
    anchors = load_anchors(made, torch.device("cpu"), groups=True)
    assert anchors.groups.tolist() == NUMBERS


def test_a_limit_keeps_groups_with_their_images(root, tmp_path):
    write(root, lines_of())
    made = prepare(root, tmp_path, limit=4)
    rows = [int(image[0, 0, 0]) // 20 for image in made.split("train").images]
    assert rows == [0, 2, 4, 6]
    assert made.groups.tolist() == [NUMBERS[row] for row in rows]
    assert made.card["group_count"] == 2


def test_without_a_file_there_are_no_groups(root, tmp_path):
    made = prepare(root, tmp_path, groups=None, group_column=None)
    assert made.groups is None
    assert not {"groups", "group_count"} & made.card.keys()


def test_spreadsheets_and_repetitions_are_read(root, tmp_path):
    lines = [f'"{line.split(",")[0]}"," {line.split(",")[1]} ",x' for line in lines_of()]
    write(root, [*lines, "", lines[0]], encoding="utf-8-sig")
    assert prepare(root, tmp_path).groups.tolist() == NUMBERS


def test_the_file_may_lie_elsewhere(root, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, lines_of())
    assert prepare(root, tmp_path, groups="~/groups.csv").groups.tolist() == NUMBERS
    assert prepare(root, tmp_path, groups="../groups.csv").groups.tolist() == NUMBERS


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (lines_of()[:-1], r"a row for each of the 8 .* none for 1 of them: train/dog/3\.png"),
        (
            [*lines_of(), "train/cat/9.png,a,x"],
            r'line 10: expected a training image .* found "train/cat/9\.png" \(did you mean',
        ),
        (
            [*lines_of(), "test/cat/0.png,a,x"],
            r'line 10: expected a training image .* found "test/cat/0\.png"',
        ),
        (
            [*lines_of(), "train/cat/0.png,a,x"],
            r'line 10: expected group "b" for train/cat/0\.png as in line 2, found "a"',
        ),
        ([*lines_of()[:3], "train/cat/3.png,a"], "line 5: expected 3 cells as in line 1, found 2"),
        ([*lines_of()[:3], 'train/cat/3.png,"a"b,x'], "line 5: no CSV"),
        (lines_of([""] * 8), 'expected groups in column "video", found only empty cells'),
    ],
    ids=["missing", "unknown", "of test", "contradicting", "short", "broken", "empty"],
)
def test_rows_that_do_not_fit(root, tmp_path, lines, message):
    write(root, lines)
    with pytest.raises(DataError, match=rf"groups\.csv: .*{message}"):
        prepare(root, tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,vidoe,note", r'column "video" .* none \(did you mean "vidoe"\?\)'),
        ("file,video,note", r'column "path" .* the columns are file, video, note'),
        ("path;video;note", r'"path" .* are path;video;note \(separated by commas\)$'),
        ("path,video,video", r'one column "video" in line 1, found 2'),
    ],
)
def test_columns_that_are_not_there(root, tmp_path, header, message):
    write(root, lines_of(), header)
    with pytest.raises(DataError, match=rf"groups\.csv: expected .*{message}"):
        prepare(root, tmp_path)


def test_files_that_cannot_be_read(root, tmp_path):
    for call in (lambda: prepare(root, tmp_path), lambda: fingerprint(spec_of(root), None)):
        with pytest.raises(DataError, match=r"groups\.csv: cannot be read \(No such file"):
            call()
    (root / "groups.csv").write_bytes(b"path,video\n\xff\xfe,a\n")
    with pytest.raises(DataError, match=r"groups\.csv: not a text file in UTF-8"):
        prepare(root, tmp_path)
    (root / "groups.csv").write_text("")
    with pytest.raises(DataError, match=r'column "path" .* the columns are nothing'):
        prepare(root, tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group_column": None}, "groups and group_column belong together, found groups alone"),
        ({"groups": None}, "group_column and groups belong together, found group_column alone"),
        ({"group_column": "path"}, "group_column must be another column"),
    ],
)
def test_keys_that_do_not_fit(root, fields, message):
    with pytest.raises(ConfigError, match=message):
        spec_of(root, **fields)


def test_an_edited_file_prepares_the_dataset_again(root, tmp_path, monkeypatch):
    write(root, lines_of())
    first = fingerprint(spec_of(root), None)
    assert prepare(root, tmp_path).card["fingerprint"] == first
    assert fingerprint(spec_of(root, groups=None, group_column=None), None) != first
    monkeypatch.setattr(module, "SETTLED", -60.0)  # hashes are kept from now on
    assert fingerprint(spec_of(root), None) == first
    write(root, lines_of(["a", *VIDEOS[1:]]))
    assert fingerprint(spec_of(root), None) != first
    write(root, lines_of())
    assert fingerprint(spec_of(root), None) == first


def test_a_dataset_without_groups_is_refused_where_they_are_needed(root, tmp_path):
    made = prepare(root, tmp_path, groups=None, group_column=None)
    with pytest.raises(DataError, match="dataset of kind image_folder has no group ids"):
        load_anchors(made, torch.device("cpu"), groups=True)
