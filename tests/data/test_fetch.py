"""From archive files in the cache to the folder that a kind's reader takes."""

import hashlib
import io
import tarfile
import zipfile

import pytest

from clsp.config.schema import KINDS, DatasetSpec
from clsp.data import fetch
from clsp.data.catalog import Archive
from clsp.runtime.errors import DataError
from clsp.runtime.registry import load


def packed(folder, inside=""):
    """A gzipped tar of a folder's content, as bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, f"{inside}{path.name}")
    return buffer.getvalue()


def known_as(archive: Archive, content: bytes) -> Archive:
    """The kind's own archive entry, with the digests of what the test has packed."""
    return Archive(
        url=archive.url,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        md5=None,
        folder=archive.folder,
        prefix=archive.prefix,
        hosts=archive.hosts,
        checked="here",
        nested=archive.nested,
    )


def archives_of(kind, miniature):
    """Content of the kind's archives, packed from its miniature as the publisher packs them."""
    if kind == "pets":
        home = miniature / "oxford-iiit-pet"
        return [packed(home / part, f"{part}/") for part in ("images", "annotations")]
    if kind == "flowers102":
        home = miniature / "flowers-102"
        mats = [(home / name).read_bytes() for name in ("imagelabels.mat", "setid.mat")]
        return [packed(home / "jpg", "jpg/"), *mats]
    if kind == "caltech101":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            inner = packed(miniature / "caltech101")
            archive.writestr("caltech-101/101_ObjectCategories.tar.gz", inner)
            archive.writestr("caltech-101/Annotations.tar", "not wanted")
            archive.writestr("__MACOSX/x", "not wanted")
        return [buffer.getvalue()]
    return [packed(miniature)]


@pytest.mark.parametrize(
    "kind",
    ["cifar10", "cifar100", "dtd", "flowers102", "food101", "pets", "aircraft", "caltech101"],
)
def test_archives_put_there_by_hand_become_readable_files(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugin = load(KINDS, kind, "kind")
    drawn = DatasetSpec(kind=kind, size=8, source="miniature", seed=3)
    fetch.fetch_dataset(drawn, tmp_path / "drawn")
    contents = archives_of(kind, tmp_path / "drawn")
    fetch.CACHE.mkdir(parents=True)
    for archive, content in zip(plugin.INFO.archives, contents, strict=True):
        (fetch.CACHE / archive.name).write_bytes(content)
    known = [known_as(*pair) for pair in zip(plugin.INFO.archives, contents, strict=True)]

    outcome = fetch._download(tuple(known), tmp_path / "files")

    for source in (tmp_path / "drawn").rglob("*.jpg"):
        copy = tmp_path / "files" / source.relative_to(tmp_path / "drawn")
        assert copy.read_bytes() == source.read_bytes()
    expected = plugin.read(drawn.settings(), tmp_path / "drawn")
    found = plugin.read(drawn.settings(), tmp_path / "files")
    assert found.classes == expected.classes
    for split, items in expected.splits.items():
        assert [i.label for i in found.splits[split]] == [i.label for i in items]
    count = sum(path.is_file() for path in (tmp_path / "files").rglob("*"))
    assert outcome.counters == {"files": count}
    assert [r["sha256"] for r in outcome.facts["archives"]] == [a.sha256 for a in known]


def test_a_wrong_archive_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fetch.CACHE.mkdir(parents=True)
    (fetch.CACHE / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    spec = DatasetSpec(kind="cifar10", size=32, source="download")
    with pytest.raises(DataError, match="14 bytes, expected 170052171; delete that file"):
        fetch.fetch_dataset(spec, tmp_path / "files")
    assert list((tmp_path / "files").iterdir()) == []


def test_a_miniature_says_so(tmp_path):
    spec = DatasetSpec(kind="dtd", size=8, source="miniature", seed=0)
    outcome = fetch.fetch_dataset(spec, tmp_path / "files")
    assert outcome.facts == {"miniature": True}
    assert outcome.counters["files"] == 203
