"""The one place that knows every archive: complete, consistent, and read strictly."""

import re
import subprocess
import sys
from itertools import pairwise
from urllib.parse import urlsplit

import pytest

from clsp.config import catalog
from clsp.config.catalog import (
    Archive,
    Members,
    contents_digest,
    dataset_info,
    is_known_host,
    known_kinds,
)
from clsp.config.schema import KINDS
from clsp.config.strict import parse
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import names, settings_class

ALL = known_kinds()
ARCHIVES = [(kind, archive) for kind in ALL for archive in dataset_info(kind).archives]
NAMED = [archive.name for _, archive in ARCHIVES]
# methods.md 4.1 and 6: classes, train, val, test of the default protocol
PUBLISHED = {
    "cifar10": (10, 50000, 0, 10000),
    "cifar100": (100, 50000, 0, 10000),
    "food101": (101, 75750, 0, 25250),
    "flowers102": (102, 1020, 1020, 6149),
    "pets": (37, 3680, 0, 3669),
    "cars": (196, 8144, 0, 8041),
    "aircraft": (100, 3334, 3333, 3333),
    "dtd": (47, 1880, 1880, 1880),
    "caltech101": (102, 3060, 0, 6084),
    "sun397": (397, 19850, 0, 19850),
    "voc2007": (20, 2501, 2510, 4952),
    "stl10": (10, 5000, 0, 8000),
    "imagenet100": (100, 126689, 0, 5000),
}
BYTES = {  # methods.md 4.1
    "cifar-10-binary.tar.gz": 170052171,
    "cifar-100-binary.tar.gz": 168513733,
    "food-101.tar.gz": 4996278331,
    "102flowers.tgz": 344862509,
    "images.tar.gz": 791918971,
    "cars_train.tgz": 979269282,
    "cars_test.tgz": 977350468,
    "dtd-r1.0.1.tar.gz": 625239812,
    "caltech-101.zip": 137414764,
    "SUN397.tar.gz": 39077296924,
    "Partitions.zip": 18293705,
    "VOCtrainval_06-Nov-2007.tar": 460032000,
    "VOCtest_06-Nov-2007.tar": 451020800,
    "stl10_binary.tar.gz": 2640397119,
}


def test_every_kind_has_an_entry_and_no_entry_lacks_its_kind():
    assert sorted(ALL) == sorted(names(KINDS))


@pytest.mark.parametrize("kind", ALL)
def test_facts_are_complete(kind):
    known = dataset_info(kind)
    assert all(getattr(known, field) for field in ("title", "license", "source", "citation"))
    model = settings_class(KINDS, kind)
    assert bool(known.archives) >= model.fetched
    if kind != "image_folder":  # whatever its owner puts there
        assert len(known.class_names) == next(iter(known.counts.values())).classes
        assert len(set(known.class_names)) == len(known.class_names)
        assert all(name == name.strip() != "" for name in known.class_names)


@pytest.mark.parametrize("kind", ALL)
def test_protocols_can_be_asked_for(kind):
    model = settings_class(KINDS, kind)
    needed = {"source": "download"} if model.fetched else {}
    needed |= {"root": "x"} if "root" in model.model_fields else {}
    seen = []
    for name, counts in dataset_info(kind).counts.items():
        settings = parse(model, {**needed, **counts.options}, f"{kind}: {name}")
        seen.append(settings.model_dump_json())
        assert (counts.unlabelled or 0) <= counts.train
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_numbers_are_those_of_the_specification(kind):
    counts = next(iter(dataset_info(kind).counts.values()))
    assert (counts.classes, counts.train, counts.val, counts.test) == PUBLISHED[kind]


def test_the_second_published_protocols_are_there():
    assert dataset_info("caltech101").counts["ssl_transfer"].train == 2416
    assert dataset_info("caltech101").counts["ssl_transfer"].test == 6728
    assert len(dataset_info("dtd").counts) == len(dataset_info("sun397").counts) == 10
    stl = dataset_info("stl10").counts
    assert stl["labelled_and_unlabelled"].train == 105000 and stl["fold 0"].train == 1000


def test_the_classes_of_imagenet100_are_sorted():
    wnids = dataset_info("imagenet100").class_names
    assert (wnids[0], wnids[-1]) == ("n01558993", "n13040303")  # methods.md 6
    assert all(first < second for first, second in pairwise(wnids))
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in wnids)


def test_archives_have_names_of_their_own():
    assert len(set(NAMED)) == len(NAMED)  # they share one folder


@pytest.mark.parametrize(("kind", "archive"), ARCHIVES, ids=NAMED)
def test_an_archive_can_be_proved(kind, archive):
    assert archive.size is not None and (archive.sha256 or archive.md5)
    assert archive.size == BYTES.get(archive.name, archive.size)
    assert len(archive.checked) > 20
    for url in archive.urls:
        parts = urlsplit(url)
        assert parts.scheme == "https" and not parts.query and parts.username is None
    members = [m for part in (archive, *archive.nested) for m in part.members]
    assert all(m.count or m.most for m in members)
    assert archive.packed is archive.name.endswith((".tar", ".gz", ".tgz", ".zip")) or (
        kind == "fashion_mnist" and not archive.packed
    )


def test_an_entry_is_read_strictly():
    with pytest.raises(ConfigError, match=r'no entry for kind "cifar" .did you mean "cifar1'):
        dataset_info("cifar")
    good = {"name": "a.zip", "checked": "here", "urls": ["https://a.org/x"], "hosts": ["a.org"]}
    parse(Archive, good, "x")
    for change, message in (
        ({"urls": ["http://a.org/x"]}, "urls.0"),
        ({"urls": ["https://me:word@a.org/x"]}, "urls.0"),
        ({"urls": ["https://b.org/x"]}, "hosts lack b.org"),
        ({"urls": ["https://aa.org/x"]}, "hosts lack aa.org"),
        ({"urls": []}, "without urls it needs `manual`"),
        ({"name": "a/b.zip"}, "name"),
        ({"sha256": "ab"}, "sha256"),
        ({"md5": "0" * 64}, "md5"),
        ({"size": 0}, "size"),
        ({"sizze": 1}, 'unknown key "sizze"'),
        ({"members": [{"pattern": "*", "count": 1, "most": 2}]}, "exclude each other"),
        ({"nested": [{"name": "b.tar", "members": []}]}, "nested.0.members"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse(Archive, {**good, **change}, "x")


def test_hosts_are_domains():
    assert is_known_host("a.org", ["a.org"]) and is_known_host("x.a.org", ["a.org"])
    assert not is_known_host("xa.org", ["a.org"])
    assert not is_known_host("a.org.evil.net", ["a.org"]) and not is_known_host("", ["a.org"])


def test_the_digest_follows_contents_and_nothing_else(monkeypatch):
    known = dataset_info("pets")
    first = contents_digest("pets")

    def digest_with(**changes):
        archives = (known.archives[0].model_copy(update=changes), *known.archives[1:])
        entry = known.model_copy(update={"archives": archives, "license": "other"})
        monkeypatch.setattr(catalog, "dataset_info", lambda kind: entry)
        return contents_digest("pets")

    assert digest_with() == digest_with(urls=(), checked="x", manual="y", hosts=()) == first
    changed = [
        digest_with(size=1),
        digest_with(sha256="0" * 64),
        digest_with(md5=None),
        digest_with(folder="x"),
        digest_with(members=(Members(pattern="x"),)),
    ]
    assert first not in changed and len(set(changed)) == len(changed)


def test_it_is_light():
    """The Snakefile reads it while parsing."""
    code = (
        "import sys, clsp.config.catalog as c; [c.dataset_info(k) for k in c.known_kinds()]; "
        "sys.exit(bool({'torch', 'torchvision', 'scipy', 'PIL', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
