"""From a publisher's server to the folder that a kind's reader takes, for every fetched kind."""

from functools import partial

import pytest
from mirror import (
    FETCHED,
    Site,
    draw_fashion,
    miniature_of,
    quick,
    take_as_published,
    zip_of,
)
from servers import cut, page, serve

from clsp.config.catalog import Archive, Members, Nested, dataset_info
from clsp.config.schema import KINDS, DatasetSpec
from clsp.data import fetch
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.registry import load


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # downloads, locks and pins lie below the working folder
    monkeypatch.setattr(fetch, "obtain_all", partial(fetch.obtain_all, patience=quick()))
    with Site() as server:
        yield server


@pytest.fixture
def offered(site, tmp_path, monkeypatch):
    """Offers the miniature archives of a kind; returns its entry and how to fetch and read it."""

    def offer(kind, change=lambda entry: entry):
        contents, entry = miniature_of(kind, tmp_path / "drawn")
        entry = change(site.offer(entry, contents))
        monkeypatch.setattr(fetch, "dataset_info", lambda name: entry)
        return entry

    return offer


def spec_of(kind, **options):
    """Real files, whose reader needs no more than a miniature's seed."""
    return DatasetSpec(kind=kind, size=8, source="download", seed=3, **options)


def read(kind, files):
    """As a miniature: readers may compare real files with published lists."""
    settings = DatasetSpec(kind=kind, size=8, source="miniature", seed=3).settings()
    return load(KINDS, kind, "kind").read(settings, files)


def labels(source):
    return {split: [(i.name, i.label) for i in items] for split, items in source.splits.items()}


@pytest.mark.parametrize("kind", FETCHED)
def test_from_the_server_to_the_reader(kind, offered, site, tmp_path):
    entry = offered(kind)
    outcome = fetch.fetch_dataset(spec_of(kind), tmp_path / "files")

    found, expected = read(kind, tmp_path / "files"), read(kind, tmp_path / "drawn")
    assert labels(found) == labels(expected) and found.classes == expected.classes
    assert all(found.splits[split] for split in ("train", "test"))
    for split in ("train", "test"):  # and the images are there, byte by byte
        for mine, theirs in zip(found.splits[split][:3], expected.splits[split][:3], strict=True):
            if mine.path:
                assert mine.path.read_bytes() == theirs.path.read_bytes()

    count = sum(path.is_file() for path in (tmp_path / "files").rglob("*"))
    size = sum(path.stat().st_size for path in (tmp_path / "files").rglob("*") if path.is_file())
    assert outcome.counters == {"files": count, "bytes": size}
    for archive, record in zip(entry.archives, outcome.facts["archives"], strict=True):
        assert record["url"] == archive.urls[0] and record["name"] == archive.name
        assert record["sha256"] == archive.sha256 and record["md5"] == archive.md5
        assert record["confirmed"] and not record["pinned"]
        contents = record["contents"]
        assert sum(c["left_out"] for c in contents) > 0 or not archive.packed
        wanted = [m for n in (archive, *archive.nested) for m in n.members]
        unpacked = {p: n for c in contents for p, n in c["members"].items()}
        assert unpacked == {m.pattern: m.count for m in wanted} or not archive.packed
    assert not list(tmp_path.rglob("README.txt")) and not list(tmp_path.rglob(".nested"))


@pytest.mark.parametrize("kind", FETCHED)
def test_archives_dropped_into_the_folder_need_no_network(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLSP_DOWNLOADS", str(tmp_path / "dropped"))
    contents, entry = miniature_of(kind, tmp_path / "drawn")
    monkeypatch.setattr(fetch, "dataset_info", lambda name: entry)  # with the real addresses
    (tmp_path / "dropped").mkdir()
    for name, content in contents.items():
        (tmp_path / "dropped" / name).write_bytes(content)
    outcome = fetch.fetch_dataset(spec_of(kind), tmp_path / "files")
    assert {record["url"] for record in outcome.facts["archives"]} == {"local"}
    assert labels(read(kind, tmp_path / "files")) == labels(read(kind, tmp_path / "drawn"))


def test_the_installed_kind_reads_what_it_fetches(site, tmp_path, monkeypatch):
    """Fashion-MNIST is no fetched kind, but has archives in the catalogue."""
    from clsp.data.kinds import fashion_mnist

    contents, entry = miniature_of("fashion_mnist", tmp_path / "drawn")
    entry = site.offer(entry, contents)
    monkeypatch.setattr(fetch, "dataset_info", lambda name: entry)
    monkeypatch.setattr(fashion_mnist, "dataset_info", lambda name: entry)
    monkeypatch.setattr(fashion_mnist, "INSTALLED", ())
    monkeypatch.delenv("FASHION_MNIST_ROOT", raising=False)
    fetch.obtain_all("fashion_mnist")
    source = fashion_mnist.read(fashion_mnist.Config(), None)
    assert {split: len(items) for split, items in source.splits.items()} == {
        "train": 20,
        "val": 0,
        "test": 20,
    }
    assert len(site.asked) == 4


def test_a_download_that_was_cut_between_two_runs(offered, site, tmp_path):
    offered("cifar10")
    site.script["/cifar-10-binary.tar.gz"] = [cut(5000)]
    with pytest.raises(DataError, match="the connection ended after 5000 of"):
        fetch.fetch_dataset(spec_of("cifar10"), tmp_path / "files")
    assert not (tmp_path / "files").exists()
    site.script["/cifar-10-binary.tar.gz"] = [serve]
    fetch.fetch_dataset(spec_of("cifar10"), tmp_path / "files")
    assert site.asked[-1][1] == "bytes=5000-"


def test_every_archive_is_tried_before_it_fails(offered, site, tmp_path):
    offered("pets")
    site.script["/images.tar.gz"] = [page]
    with pytest.raises(DataError, match=r"images\.tar\.gz could not be downloaded"):
        fetch.fetch_dataset(spec_of("pets"), tmp_path / "files")
    assert (tmp_path / "downloads" / "annotations.tar.gz").is_file()


def test_a_second_archive_that_is_damaged_leaves_nothing(offered, tmp_path):
    def spoil(entry):
        first, second = entry.archives
        second = second.model_copy(update={"members": (Members(pattern="gone/*", count=2),)})
        return entry.model_copy(update={"archives": (first, second)})

    offered("pets", spoil)
    with pytest.raises(DataError, match="holds 0 files 'gone/\\*', expected 2"):
        fetch.fetch_dataset(spec_of("pets"), tmp_path / "files")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["downloads", "drawn"]


def test_a_kind_whose_publisher_is_gone_says_what_belongs_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = dataset_info("cars")
    archives = tuple(a.model_copy(update={"urls": ()}) for a in entry.archives)
    offline = entry.model_copy(update={"archives": archives})
    monkeypatch.setattr(fetch, "dataset_info", lambda name: offline)
    with pytest.raises(DataError) as caught:
        fetch.fetch_dataset(spec_of("cars"), tmp_path / "files")
    for archive in entry.archives:
        assert f"downloads/{archive.name}" in str(caught.value)
        assert f"bytes {archive.size}" in str(caught.value)


def test_a_wrong_archive_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"14 bytes, expected 170052171\. Move that file away"):
        fetch.fetch_dataset(spec_of("cifar10"), tmp_path / "files")
    assert not (tmp_path / "files").exists()


def test_an_archive_in_an_archive_is_judged_as_strictly(offered, site, tmp_path):
    outer = zip_of({"in.zip": zip_of({"../up": b"x"})})
    entry = Archive(
        name="out.zip",
        checked="here",
        manual="none",
        nested=(Nested(name="in.zip", members=(Members(pattern="a"),)),),
    )
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "out.zip").write_bytes(outer)
    offered("caltech101", lambda known: known.model_copy(update={"archives": (entry,)}))
    with pytest.raises(DataError, match=r"unsafe member name '\.\./up'"):
        fetch.fetch_dataset(spec_of("caltech101"), tmp_path / "files")
    assert not (tmp_path / "files").exists() and not (tmp_path / "up").exists()


def test_a_miniature_says_so(tmp_path):
    spec = DatasetSpec(kind="dtd", size=8, source="miniature", seed=0)
    outcome = fetch.fetch_dataset(spec, tmp_path / "files")
    assert outcome.facts == {"miniature": True}
    count = sum(path.is_file() for path in (tmp_path / "files").rglob("*"))
    assert outcome.counters["files"] == count > 200


def test_a_miniature_that_cannot_be_drawn_leaves_nothing(tmp_path, monkeypatch):
    def fail(files, seed):
        (files / "half").write_text("x")
        raise DataError("no more")

    monkeypatch.setattr(load(KINDS, "dtd", "kind"), "draw", fail)
    with pytest.raises(DataError, match="no more"):
        fetch.fetch_dataset(
            DatasetSpec(kind="dtd", size=8, source="miniature", seed=0), tmp_path / "x"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["digits", "image_folder", "imagenet100"])
def test_what_needs_no_fetching(kind):
    with pytest.raises(ConfigError, match=f'kind "{kind}" has nothing to fetch'):
        fetch.obtain_all(kind)


def test_the_mirror_draws_what_the_reader_of_fashion_mnist_takes(tmp_path, monkeypatch):
    from clsp.data.kinds import fashion_mnist

    draw_fashion(tmp_path)
    take_as_published(tmp_path, monkeypatch)
    monkeypatch.setenv("FASHION_MNIST_ROOT", str(tmp_path))
    assert len(fashion_mnist.read(fashion_mnist.Config(), None).classes) == 10
