"""A user's own folder: what is read, what is skipped, what is refused; and its fingerprint."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from clsp.config.schema import DatasetSpec
from clsp.data import fingerprint as module
from clsp.data.fingerprint import fingerprint
from clsp.data.prepare import prepare_dataset
from clsp.runtime.canonical import read_json, sha256_file
from clsp.runtime.errors import ConfigError, DataError


def put(path, mode="RGB", size=(10, 8), value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = np.random.default_rng(len(str(path)) * 1000 + sum(map(ord, str(path.name))))
    image = Image.fromarray(stream.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    if value is not None:
        image = Image.new("RGB", size, value)
    image.convert(mode).save(path)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache" / "fingerprints.json")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "mine"
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                put(folder / split / name / f"{number}.png")
    return folder


def spec_of(root, **fields):
    return DatasetSpec(kind="image_folder", size=6, root=str(root), **fields)


def prepare(root, tmp_path, **fields):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    paths = [out / name for name in ("images.npy", "labels.npy", "items.csv", "card.json")]
    prepare_dataset(spec_of(root, **fields), [], *paths)
    return np.load(paths[0]), np.load(paths[1]), read_json(paths[3])


def test_rows_are_train_val_test_sorted_by_class(root, tmp_path):
    put(root / "val" / "dog" / "x.png")
    images, labels, card = prepare(root, tmp_path)
    assert card["classes"] == ["cat", "dog"]
    assert card["splits"] == {"train": [0, 8], "val": [8, 9], "test": [9, 13]}
    assert card["counts"] == {"train": [4, 4], "val": [0, 1], "test": [2, 2]}
    assert labels.tolist() == [0] * 4 + [1] * 4 + [1] + [0] * 2 + [1] * 2
    assert images.shape == (13, 6, 6, 3) and images.dtype == np.uint8


def test_odd_formats_and_clutter(root, tmp_path):
    put(root / "train/cat/deep/down/a.tiff", "L")
    put(root / "train/cat/b.gif", "P")
    put(root / "train/cat/c.PNG", "RGBA")
    put(root / "train/cat/d.bmp", "1")
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(
        root / "train/cat/e.png"
    )
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "labels.csv", "notes.txt", "._a.jpg"):
        (root / "train" / "dog" / name).write_text("clutter")
        (root / "train" / name).write_text("clutter")
    (root / "README.md").write_text("mine")
    (root / "train" / ".hidden").mkdir()
    _, _, card = prepare(root, tmp_path)
    assert card["counts"]["train"] == [9, 4]


def test_the_same_folder_gives_the_same_bytes(root, tmp_path):
    first = prepare(root, tmp_path)
    second = prepare(root, tmp_path)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[2] == second[2]


def test_limit_is_per_split_and_even(root, tmp_path):
    _, labels, card = prepare(root, tmp_path, limit=3)
    assert card["splits"] == {"train": [0, 3], "val": [3, 3], "test": [3, 6]}
    assert labels.tolist() == [0, 0, 1, 0, 0, 1]
    with pytest.raises(ConfigError, match="limit: 1 images cannot show the 2 classes"):
        prepare(root, tmp_path, limit=1)


def refused(root, tmp_path, message):
    for call in (lambda: prepare(root, tmp_path), lambda: fingerprint(spec_of(root), None)):
        with pytest.raises(DataError, match=message):
            call()


def test_no_folder(tmp_path):
    refused(tmp_path / "nowhere", tmp_path, "nowhere: no such folder")


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(
        tmp_path / "empty", tmp_path, r"empty: has no folder train/<class>/\*; it holds nothing"
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_is_missing(root, tmp_path, split):
    (root / split).rename(root / "other")
    refused(root, tmp_path, f"mine: has no folder {split}/.*it holds other")


def test_a_split_without_classes(root, tmp_path):
    for name in ("cat", "dog"):
        for path in (root / "test" / name).iterdir():
            path.unlink()
        (root / "test" / name).rmdir()
    refused(root, tmp_path, "test: empty; expected one folder per class")


def test_a_class_without_images(root, tmp_path):
    (root / "train" / "bird").mkdir()
    (root / "train" / "bird" / ".DS_Store").write_text("")
    refused(root, tmp_path, "bird: class 'bird' has no images")


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_class_that_train_lacks(root, tmp_path, split):
    put(root / split / "bird" / "a.png")
    refused(root, tmp_path, "bird: class 'bird' is not in .*train")


def test_an_image_outside_a_class(root, tmp_path):
    put(root / "train" / "stray.png")
    refused(root, tmp_path, "stray.png: lies outside a class folder")


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_an_unreadable_image_is_named(root, tmp_path, content):
    (root / "test" / "dog" / "bad.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.jpg: not a readable image"):
        prepare(root, tmp_path)


def test_something_else_than_an_image_is_an_error_not_skipped(root, tmp_path):
    (root / "train" / "cat" / "movie.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match=r"movie\.mp4"):
        prepare(root, tmp_path)


def test_a_folder_named_valid_is_mentioned(root, tmp_path, caplog):
    put(root / "valid" / "cat" / "a.png")
    prepare(root, tmp_path)
    assert "valid: not read" in caplog.text


def test_images_without_any_contrast(root, tmp_path):
    for path in (root / "train").rglob("*.png"):
        put(path, value=(9, 200, 9))
    with pytest.raises(DataError, match="alike in red, green, blue"):
        prepare(root, tmp_path)
    fixed = {"mean": [0.5] * 3, "std": [0.5] * 3}
    _, _, card = prepare(root, tmp_path, normalisation=fixed)
    assert card["std"] == [0.0, 0.0, 0.0]


def test_a_linked_class_folder_is_read_and_a_loop_is_not_followed(root, tmp_path):
    put(tmp_path / "elsewhere" / "a.png")
    for split in ("train", "test"):
        (root / split / "linked").symlink_to(tmp_path / "elsewhere")
    _, _, card = prepare(root, tmp_path)
    assert card["classes"] == ["cat", "dog", "linked"]
    (root / "train" / "cat" / "loop").symlink_to(root / "train")
    with pytest.raises(DataError, match="loop"):
        prepare(root, tmp_path)


def fingerprint_of(root, card=None):
    return fingerprint(spec_of(root), card)


def old(root):
    """Make all files old enough for their hashes to be kept, as far as time stamps may be set."""
    for path in root.rglob("*.png"):
        os.utime(path, ns=(1, 1))


def test_the_fingerprint_follows_content_and_names_not_times(root):
    first = fingerprint_of(root)
    (root / "train" / "cat" / ".DS_Store").write_text("ignored")
    old(root)
    assert fingerprint_of(root) == first
    path = root / "train" / "cat" / "0.png"
    path.rename(path.with_name("9.png"))
    renamed = fingerprint_of(root)
    assert renamed != first
    path.with_name("9.png").write_bytes((root / "train" / "dog" / "1.png").read_bytes())
    assert fingerprint_of(root) not in (first, renamed)


def test_a_copy_elsewhere_has_the_same_fingerprint_and_the_card_records_it(root, tmp_path):
    shutil.copytree(root, tmp_path / "other", copy_function=shutil.copyfile)
    first = fingerprint_of(root)
    assert fingerprint_of(tmp_path / "other") == first
    assert prepare(root, tmp_path)[2]["fingerprint"] == first


def test_unchanged_files_are_not_read_again(root, monkeypatch):
    read = []
    monkeypatch.setattr(module, "sha256_file", lambda path: read.append(path) or sha256_file(path))
    monkeypatch.setattr(module, "SETTLED", -60.0)
    first = fingerprint_of(root)
    assert len(read) == 12
    assert fingerprint_of(root) == first
    assert len(read) == 12
    (root / "test" / "dog" / "0.png").write_bytes(b"changed")
    assert fingerprint_of(root) != first
    assert [path.name for path in read[12:]] == ["0.png"]


def test_files_just_written_are_read_again(root):
    """Two writes within one tick of the clock leave the same time stamp."""
    fingerprint_of(root)
    assert not module.CACHE.exists()


@pytest.mark.parametrize("text", ["", "[]", '{"x": 5}', '{"x": {"train/cat/0.png": 5}}', "\xff"])
def test_a_damaged_cache_is_ignored(root, text, monkeypatch):
    first = fingerprint_of(root)
    module.CACHE.parent.mkdir(exist_ok=True)
    module.CACHE.write_text(text.replace("x", str(root.resolve())), encoding="latin-1")
    monkeypatch.setattr(module, "SETTLED", -60.0)
    assert fingerprint_of(root) == first
    assert fingerprint_of(root) == first


def test_without_the_folder_the_card_answers(root, tmp_path):
    prepare(root, tmp_path)
    card, first = tmp_path / "out" / "card.json", fingerprint_of(root)
    root.rename(tmp_path / "away")
    assert fingerprint_of(root, card) == first
    for absent in (None, tmp_path / "no-card.json"):
        with pytest.raises(DataError, match="mine: no such folder"):
            fingerprint_of(root, absent)
    root.mkdir()
    with pytest.raises(DataError, match="mine: has no folder train"):
        fingerprint_of(root, card)


def test_names_that_are_no_utf8(root, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", -60.0)
    first = fingerprint_of(root)
    odd = os.fsencode(root / "train" / "cat") + b"/\xff.png"
    try:
        shutil.copy(root / "train/cat/0.png", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert fingerprint_of(root) == fingerprint_of(root) != first
    assert prepare(root, tmp_path)[2]["counts"]["train"] == [5, 4]
    (root / "train" / "dog").rename(root / "train" / os.fsdecode(b"d\xff"))
    refused(root, tmp_path, "the folder name 'd.*' is not UTF-8")


def test_other_kinds_have_no_fingerprint():
    spec = DatasetSpec(kind="digits", size=8, test_fraction=0.25, seed=0)
    assert fingerprint(spec, None) == ""
