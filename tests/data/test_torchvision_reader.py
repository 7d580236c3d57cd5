"""What comes through torchvision is what torchvision gives; STL-10, read by us, too."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import reading
from PIL import Image

from clsp.data.listing import refuse_repeats
from clsp.data.torchvision_reader import read_source
from clsp.runtime.errors import DataError

THROUGH = ("aircraft", "cars", "dtd", "flowers102", "food101", "pets")


@pytest.fixture
def theirs(miniature_of, tmp_path, monkeypatch):
    """torchvision's own dataset of a miniature and split, images opened by torchvision."""
    from torchvision import datasets

    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)

    def build(kind, split, **options):
        root = miniature_of(kind)
        if kind == "dtd":  # torchvision keeps the archive's folder in one of its own
            (tmp_path / "dtd").mkdir(exist_ok=True)
            (tmp_path / "dtd" / "dtd").symlink_to(root / "dtd")
            root = tmp_path
        classes = {
            "aircraft": datasets.FGVCAircraft,
            "cars": datasets.StanfordCars,
            "dtd": datasets.DTD,
            "flowers102": datasets.Flowers102,
            "food101": datasets.Food101,
            "pets": datasets.OxfordIIITPet,
            "stl10": datasets.STL10,
        }
        split = {"train": "trainval"}.get(split, split) if kind == "pets" else split
        return classes[kind](root, split, **options)

    return build


@pytest.mark.parametrize("kind", THROUGH)
@pytest.mark.parametrize("split", ["train", "test"])
def test_images_and_labels_are_torchvisions(kind, split, theirs, miniature_of):
    ours = reading.read(kind, miniature_of(kind)).splits[split]
    expected = theirs(kind, split)
    assert len(expected) == len(ours)
    for row, item in enumerate(ours):
        if row % 7 == 0:
            image, label = expected[row]
            assert label == item.label
            np.testing.assert_array_equal(np.asarray(item.open()), np.asarray(image))


@pytest.mark.parametrize("kind", ["dtd", "flowers102", "aircraft"])
def test_val_is_torchvisions(kind, theirs, miniature_of):
    ours, expected = reading.read(kind, miniature_of(kind)).splits["val"], theirs(kind, "val")
    assert [item.label for item in ours] == [label for _, label in expected]


@pytest.mark.parametrize(
    ("kind", "options", "theirs_options"),
    [
        ("dtd", {"partition": 3}, {"partition": 3}),
        ("aircraft", {"level": "family"}, {"annotation_level": "family"}),
        ("aircraft", {"level": "manufacturer"}, {"annotation_level": "manufacturer"}),
    ],
)
def test_options_are_torchvisions(kind, options, theirs_options, theirs, miniature_of):
    source = reading.read(kind, miniature_of(kind), **options)
    expected = theirs(kind, "test", loader=str, **theirs_options)
    assert list(source.classes) == list(expected.classes)
    ours = [(item.path.name, item.label) for item in source.splits["test"]]
    assert ours == [(Path(path).name, label) for path, label in expected]


@pytest.mark.parametrize(
    ("split", "options"),
    [
        ("train", {}),
        ("train", {"fold": 2}),
        ("train+unlabeled", {"train": "labelled_and_unlabelled"}),
        ("unlabeled", {"train": "unlabelled"}),
        ("test", {}),
    ],
)
def test_stl10_is_torchvisions(split, options, theirs, miniature_of):
    source = reading.read("stl10", miniature_of("stl10"), **options)
    ours = source.splits["test" if split == "test" else "train"]
    expected = theirs("stl10", split, folds=options.get("fold"))
    assert source.classes == tuple(expected.classes)
    assert [item.label for item in ours] == [int(label) for label in expected.labels]
    for item, (image, _) in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(item.open(), np.asarray(image))


def test_pets_become_rgb(miniature_of, tmp_path):
    files = reading.draw("pets", tmp_path)
    item = reading.read("pets", files).splits["test"][0]
    Image.new("L", (9, 9), 7).save(item.path)
    assert item.open().mode == "RGB"
    Image.new("RGBA", (9, 9), (1, 2, 3, 255)).save(item.path, "PNG")
    assert np.asarray(item.open())[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", THROUGH)
def test_a_listed_image_that_is_not_there_is_named(kind, tmp_path):
    item = reading.read(kind, reading.draw(kind, tmp_path)).splits["test"][3]
    item.path.unlink()
    with pytest.raises(DataError, match=f"{item.path}: not a readable image .No such file"):
        item.open()


class Fake(list):
    """What torchvision's datasets have in common."""

    def __init__(self, pairs, classes):
        super().__init__(pairs)
        self.classes = classes


def fake(pairs_of, tmp_path, classes=("a", "b")):
    (tmp_path / "list.txt").touch()
    lists = {split: [tmp_path / "list.txt"] for split in pairs_of}
    made = {split: Fake(pairs, list(classes)) for split, pairs in pairs_of.items()}
    return read_source(made.__getitem__, lists, tmp_path)


def pairs(tmp_path, *rows):
    return [(str(tmp_path / name), label) for name, label in rows]


def test_labels_must_fit_the_classes(tmp_path):
    of = partial(pairs, tmp_path)
    source = fake({"train": of(("1", 0), ("2", 1)), "test": of(("3", 0), ("4", 1))}, tmp_path)
    assert reading.counts_of(source) == (2, 0, 2)
    assert reading.names_of(source, "test") == ["3", "4"]
    with pytest.raises(DataError, match=r"list\.txt: class number 3, expected 1 to 2"):
        fake({"train": of(("1", 0), ("2", 2))}, tmp_path)
    with pytest.raises(DataError, match="class number 0, expected 1 to 2"):
        fake({"train": of(("1", -1), ("2", 1))}, tmp_path)
    with pytest.raises(DataError, match="lists no image of class 'b'"):
        fake({"train": of(("1", 0))}, tmp_path)
    with pytest.raises(DataError, match="lists no images"):
        fake({"train": []}, tmp_path)


def test_an_image_may_be_listed_once(tmp_path):
    of = partial(pairs, tmp_path)
    with pytest.raises(DataError, match="lists 1 twice, in train and in test"):
        fake({"train": of(("1", 0), ("2", 1)), "test": of(("1", 0), ("4", 1))}, tmp_path)
    with pytest.raises(DataError, match="lists 1 twice, in train and in train"):
        fake({"train": of(("1", 0), ("2", 1), ("1", 1))}, tmp_path)
    refuse_repeats({"train": [], "test": []}, tmp_path)


def test_splits_have_the_same_classes(tmp_path):
    (tmp_path / "list.txt").touch()
    made = {
        "train": Fake(pairs(tmp_path, ("1", 0)), ["cat"]),
        "test": Fake(pairs(tmp_path, ("2", 0)), ["dog"]),
    }
    lists = {split: [tmp_path / "list.txt"] for split in made}
    with pytest.raises(
        DataError, match=r"classes than in train: has \['dog'\] besides, lacks \['cat'\]"
    ):
        read_source(made.__getitem__, lists, tmp_path)


def test_a_missing_list_is_named_before_torchvision_is_asked(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read \(no such file\)"):
        read_source(lambda split: 1 / 0, {"train": [tmp_path / "gone.txt"]}, tmp_path)


def test_whatever_torchvision_raises_names_the_list(tmp_path):
    (tmp_path / "list.txt").touch()
    with pytest.raises(DataError, match=r"list\.txt: not as torchvision expects .ZeroDivision"):
        read_source(lambda split: 1 / 0, {"train": [tmp_path / "list.txt"]}, tmp_path)
