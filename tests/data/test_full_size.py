"""Readers on lists of the published length give the published counts (methods.md 4.1)."""

import hashlib
from collections import Counter

import pytest
import reading
import skeletons
from reading import FETCHED

from clsp.config.catalog import dataset_info
from clsp.data.kinds import caltech101
from clsp.runtime.errors import DataError

PUBLISHED = [  # kind, options, classes, (train, val, test)
    ("cifar10", {}, 10, (50000, 0, 10000)),
    ("cifar100", {}, 100, (50000, 0, 10000)),
    ("food101", {}, 101, (75750, 0, 25250)),
    ("flowers102", {}, 102, (1020, 1020, 6149)),
    ("pets", {}, 37, (3680, 0, 3669)),
    ("cars", {}, 196, (8144, 0, 8041)),
    ("aircraft", {}, 100, (3334, 3333, 3333)),
    ("aircraft", {"level": "family"}, 70, (3334, 3333, 3333)),
    ("aircraft", {"level": "manufacturer"}, 30, (3334, 3333, 3333)),
    ("dtd", {}, 47, (1880, 1880, 1880)),
    ("dtd", {"partition": 10}, 47, (1880, 1880, 1880)),
    ("caltech101", {}, 102, (3060, 0, 6084)),
    ("caltech101", {"split": "tfds"}, 102, (3060, 0, 6084)),
    ("caltech101", {"split": "random", "seed": 3}, 102, (3060, 0, 6084)),
    ("caltech101", {"split": "ssl_transfer"}, 102, (2416, 0, 6728)),
    ("sun397", {}, 397, (19850, 0, 19850)),
    ("sun397", {"partition": 7}, 397, (19850, 0, 19850)),
    ("voc2007", {}, 20, (2501, 2510, 4952)),
    ("stl10", {}, 10, (5000, 0, 8000)),
    ("stl10", {"train": "labelled_and_unlabelled"}, 10, (105000, 0, 8000)),
    ("stl10", {"train": "unlabelled"}, 10, (100000, 0, 8000)),
    ("stl10", {"fold": 4}, 10, (1000, 0, 8000)),
]


@pytest.fixture(scope="module")
def skeleton_of(tmp_path_factory):
    home, built = tmp_path_factory.mktemp("skeletons"), {}

    def folder(kind):
        if kind not in built:
            built[kind] = home / kind
            built[kind].mkdir()
            skeletons.BUILDERS[kind](built[kind])
        return built[kind]

    return folder


def read_real(kind, files, **options):
    return reading.read(kind, files, **{"source": "download", "seed": None, **options})


@pytest.fixture(scope="module")
def source_of(skeleton_of):
    """What the reader finds in a skeleton; read once for each set of options."""
    found = {}

    def source(kind, **options):
        key = (kind, *sorted(options.items()))
        if key not in found:
            found[key] = read_real(kind, skeleton_of(kind), **options)
        return found[key]

    return source


@pytest.mark.parametrize(("kind", "options", "classes", "counts"), PUBLISHED)
def test_counts_of_the_real_lists(kind, options, classes, counts, source_of):
    source = source_of(kind, **options)
    assert reading.counts_of(source) == counts
    assert len(source.classes) == classes
    if options.get("level", "variant") == "variant":
        assert source.classes == dataset_info(kind).class_names
    names = [item.name for items in source.splits.values() for item in items]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", FETCHED)
def test_the_catalogue_promises_what_the_reader_finds(kind, source_of):
    known = dataset_info(kind)
    assert known.counts
    for promised in known.counts.values():
        source = source_of(kind, **promised.options)
        assert reading.counts_of(source) == (promised.train, promised.val, promised.test)
        assert len(source.classes) == promised.classes


def test_every_kind_was_counted():
    assert {kind for kind, *_ in PUBLISHED} == set(FETCHED) == set(skeletons.BUILDERS)


def test_thirty_per_class_of_caltech_without_replacement(source_of):
    for options in ({"split": "tfds"}, {"split": "random", "seed": 0}):
        source = source_of("caltech101", **options)
        assert set(Counter(reading.labels_of(source, "train")).values()) == {30}
        assert "without replacement" in source.drawing
    assert "RandomState(1234)" in source_of("caltech101").drawing
    assert "BACKGROUND_Google" in source.classes


def test_draws_of_caltech_differ_by_protocol_and_seed(skeleton_of, source_of):
    seen = [
        tuple(reading.names_of(source_of("caltech101", **options), "train"))
        for options in (
            {"split": "tfds"},
            {"split": "ssl_transfer"},
            {"split": "random", "seed": 0},
            {"split": "random", "seed": 1},
        )
    ]
    assert len(set(seen)) == 4
    again = read_real("caltech101", skeleton_of("caltech101"), split="random", seed=1)
    assert tuple(reading.names_of(again, "train")) == seen[3]
    with pytest.raises(ValueError, match="split: random needs a seed"):
        reading.settings_of("caltech101", source="download", split="random")


def test_the_published_list_of_caltech_comes_back(source_of):
    """Its digest was taken from the publisher's file, not from our draw."""
    source = source_of("caltech101", split="ssl_transfer")
    names = reading.names_of(source, "train")
    assert names == sorted(names)
    lines = "".join(f"{name}\n" for name in names)
    published = "3db3cb31315085d642315eccab2c6994e71dc516ef7ab49def07c51d49f92868"
    assert hashlib.sha256(lines.encode()).hexdigest() == caltech101.SSL_TRANSFER == published
    per_class = Counter(reading.labels_of(source, "train")).values()
    assert (min(per_class), max(per_class)) == (17, 30)
    assert "with replacement" in source.drawing


def test_other_file_names_do_not_pass_for_the_published_list(tmp_path):
    skeletons.caltech(tmp_path)
    (tmp_path / "caltech101/101_ObjectCategories/Faces/image_0436.jpg").touch()
    assert len(read_real("caltech101", tmp_path).splits["test"]) == 6085
    read_real("caltech101", tmp_path, split="random", seed=0)
    with pytest.raises(
        DataError, match=r"other lists than those published as ssl_transfer.*found 9145"
    ):
        read_real("caltech101", tmp_path, split="ssl_transfer")
