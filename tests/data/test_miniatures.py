"""Miniatures of all fetched kinds, read by the readers that read the real files."""

import hashlib

import numpy as np
import pytest
import reading
from reading import FETCHED, SPLITS

from clsp.config.catalog import dataset_info
from clsp.data import miniature, motifs
from clsp.data.catalog import UNLABELLED

COUNTS = {  # train, val, test; five classes but for CIFAR-100's six
    "aircraft": (80, 60, 60),
    "caltech101": (150, 0, 60),
    "cars": (80, 0, 60),
    "cifar10": (80, 0, 60),
    "cifar100": (96, 0, 72),
    "dtd": (80, 60, 60),
    "flowers102": (80, 60, 60),
    "food101": (80, 0, 60),
    "pets": (80, 0, 60),
    "stl10": (30, 0, 20),
    "sun397": (80, 0, 60),
    "voc2007": (80, 60, 60),
}


@pytest.mark.parametrize("kind", FETCHED)
def test_counts_classes_and_names(kind, miniature_of):
    source = reading.read(kind, miniature_of(kind))
    assert reading.counts_of(source) == COUNTS[kind]
    published = dataset_info(kind).class_names
    assert list(source.classes) == [name for name in published if name in source.classes]
    names = [item.name for split in SPLITS for item in source.splits[split]]
    assert len(set(names)) == len(names)
    assert not any(name.startswith("/") or ".." in name for name in names)


@pytest.mark.parametrize("kind", FETCHED)
def test_every_class_is_in_every_split(kind, miniature_of):
    source = reading.read(kind, miniature_of(kind))
    assert source.multilabel is (kind == "voc2007")
    for split in SPLITS:
        labels = reading.labels_of(source, split)
        if source.multilabel:
            assert all(found == tuple(sorted(set(found))) for found in labels)
            assert {len(found) for found in labels} >= {1, 2}
            labels = [label for found in labels for label in found]
        assert set(labels) == (set(range(len(source.classes))) if source.splits[split] else set())


@pytest.mark.parametrize("kind", FETCHED)
def test_images_open_and_lie_where_they_say(kind, miniature_of):
    source = reading.read(kind, miniature_of(kind))
    for split in SPLITS:
        for item in source.splits[split][::13]:
            assert np.asarray(item.open()).ndim == 3
            assert item.path is None or item.path.as_posix().endswith(item.name)
            assert item.path is None or item.path.is_file()


@pytest.mark.parametrize("kind", FETCHED)
def test_reading_twice_gives_the_same(kind, miniature_of):
    np.random.seed(5)  # the global stream must not matter
    first = reading.read(kind, miniature_of(kind))
    np.random.random()
    second = reading.read(kind, miniature_of(kind))
    for split in SPLITS:
        assert reading.names_of(first, split) == reading.names_of(second, split)
        assert reading.labels_of(first, split) == reading.labels_of(second, split)
    assert first.classes == second.classes


def digest_of(folder):
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("kind", ["cars", "stl10", "sun397", "voc2007"])
def test_drawing_depends_on_the_seed_alone(kind, miniature_of, tmp_path):
    np.random.seed(6)
    first = digest_of(miniature_of(kind))
    assert digest_of(reading.draw(kind, tmp_path / "again")) == first
    assert digest_of(reading.draw(kind, tmp_path / "other", seed=1)) != first


@pytest.mark.parametrize(
    ("kind", "partition"), [("dtd", 2), ("dtd", 10), ("sun397", 2), ("sun397", 10)]
)
def test_partitions_deal_the_same_images_in_another_way(kind, partition, miniature_of):
    files = miniature_of(kind)
    first, other = (reading.read(kind, files, partition=p) for p in (1, partition))
    assert reading.counts_of(other) == COUNTS[kind]
    assert other.classes == first.classes
    for split in ("train", "test"):
        assert set(reading.names_of(first, split)) != set(reading.names_of(other, split))
    default = reading.read(kind, files)
    assert reading.names_of(default, "train") == reading.names_of(first, "train")
    assert not set(reading.names_of(other, "train")) & set(reading.names_of(other, "test"))


@pytest.mark.parametrize("kind", ["dtd", "sun397"])
@pytest.mark.parametrize("partition", [0, 11])
def test_there_are_ten_partitions(kind, partition):
    with pytest.raises(ValueError, match="partition"):
        reading.settings_of(kind, source="miniature", seed=0, partition=partition)


@pytest.mark.parametrize(("level", "classes"), [("variant", 5), ("family", 4), ("manufacturer", 2)])
def test_levels_of_aircraft(level, classes, miniature_of):
    source = reading.read("aircraft", miniature_of("aircraft"), level=level)
    assert len(source.classes) == classes
    assert reading.counts_of(source) == COUNTS["aircraft"]
    variants = reading.read("aircraft", miniature_of("aircraft"))
    assert reading.names_of(source, "test") == reading.names_of(variants, "test")


def test_the_strip_of_aircraft_goes_only_if_asked(miniature_of):
    kept, cropped = (
        reading.read("aircraft", miniature_of("aircraft"), strip=strip)
        for strip in ("keep", "crop")
    )
    whole, rest = (np.asarray(s.splits["test"][7].open()) for s in (kept, cropped))
    np.testing.assert_array_equal(whole[:-20], rest)
    assert whole[-18:].mean() > 220  # what a miniature has there instead of a copyright
    assert cropped.splits["test"][7].path is None  # its file is not what it shows
    assert cropped.splits["test"][7].name == kept.splits["test"][7].name


def test_mixtures_of_stl10(miniature_of):
    files = miniature_of("stl10")
    labelled, both, unlabelled = (
        reading.read("stl10", files, train=train)
        for train in ("labelled", "labelled_and_unlabelled", "unlabelled")
    )
    assert reading.counts_of(labelled) == (30, 0, 20)
    assert reading.counts_of(both) == (38, 0, 20)
    assert reading.counts_of(unlabelled) == (8, 0, 20)
    assert reading.labels_of(both, "train") == [*reading.labels_of(labelled, "train"), *[-1] * 8]
    assert set(reading.labels_of(unlabelled, "train")) == {UNLABELLED}
    assert reading.names_of(both, "train")[:30] == reading.names_of(labelled, "train")
    assert reading.names_of(both, "train")[30:] == reading.names_of(unlabelled, "train")


def test_folds_of_stl10(miniature_of):
    files = miniature_of("stl10")
    lines = (files / "stl10_binary" / "fold_indices.txt").read_text().splitlines()
    for fold in (0, 9):
        source = reading.read("stl10", files, fold=fold)
        rows = [int(name.split("/")[1]) for name in reading.names_of(source, "train")]
        assert rows == [int(part) for part in lines[fold].split()]
        assert len(source.splits["test"]) == 20
    with pytest.raises(ValueError, match="fold: needs train: labelled, found unlabelled"):
        reading.settings_of("stl10", source="miniature", seed=0, train="unlabelled", fold=0)
    with pytest.raises(ValueError, match="fold"):
        reading.settings_of("stl10", source="miniature", seed=0, fold=10)


def test_hard_objects_of_voc_count_as_not_shown(miniature_of):
    files = miniature_of("voc2007")
    source = reading.read("voc2007", files)
    lists = files / "VOCdevkit/VOC2007/ImageSets/Main"
    hard = 0
    for label, name in enumerate(source.classes):
        flags = dict(
            line.split() for line in (lists / f"{name}_train.txt").read_text().splitlines()
        )
        for item in source.splits["train"]:
            flag = flags[item.path.stem]
            assert (label in item.label) is (flag == "1")
            hard += flag == "0"
    assert hard > 20


def test_an_image_of_voc_may_show_nothing_that_counts(tmp_path):
    files = reading.draw("voc2007", tmp_path)
    for path in (files / "VOCdevkit/VOC2007/ImageSets/Main").glob("*_val.txt"):
        lines = path.read_text().splitlines()
        path.write_text("\n".join([f"{lines[0].split()[0]}  0", *lines[1:]]))
    assert reading.read("voc2007", files).splits["val"][0].label == ()


def test_every_image_of_a_miniature_has_its_own_draw():
    pictures = {
        miniature.paint(motifs.plain_shapes, seed, kind, label, number, 8).tobytes()
        for seed in (0, 1)
        for kind in ("cifar10", "dtd")
        for label in (0, 1)
        for number in (0, 1)
    }
    assert len(pictures) == 16


@pytest.mark.parametrize("partition", [1, 2, 10])
def test_splits_of_a_miniature_share_no_number(partition):
    drawn = [pair for split in SPLITS for pair in miniature.examples(split, 3, partition)]
    assert len(set(drawn)) == len(drawn) == 3 * 40


def test_miniatures_are_small(miniature_of):
    sizes = {
        kind: sum(p.stat().st_size for p in miniature_of(kind).rglob("*") if p.is_file())
        for kind in FETCHED
    }
    assert sum(sizes.values()) < 5 << 20, sizes
