"""The first good download of an archive without a published sha256 fixes it."""

import json
import multiprocessing

import pytest
from mirror import Site, quick
from servers import sending

from clsp.config.catalog import Archive
from clsp.data import pins
from clsp.data.download import obtain
from clsp.runtime.errors import DataError

CONTENT = b"first" * 100
OTHER = b"other" * 100
A, B = "a" * 64, "b" * 64
MD5 = "c" * 32


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def site():
    with Site() as server:
        server.files["/x.zip"] = CONTENT
        yield server


def entry(site=None, **changes):
    urls = (site.url("/x.zip"),) if site else ()
    known = Archive(name="x.zip", checked="nobody published a digest", manual="x")
    return known.model_copy(update={"urls": urls, "hosts": ("127.0.0.1",), **changes})


def test_a_first_download_pins_and_another_is_refused(site, tmp_path):
    archive = entry(site, size=len(CONTENT))
    first = obtain(archive, patience=quick())
    assert not first.checked.confirmed and first.checked.record()["pinned"]
    lock = json.loads((tmp_path / "datasets.lock.json").read_text())
    assert lock["archives"]["x.zip"] == {
        "sha256": first.checked.sha256,
        "md5": first.checked.md5,
        "size": 500,
        "fitted": ["size"],
        "url": archive.urls[0],
    }
    first.path.unlink()
    assert obtain(archive, patience=quick()).checked.sha256 == first.checked.sha256

    first.path.unlink()
    site.script["/x.zip"] = [sending(OTHER)]
    with pytest.raises(DataError, match=r'datasets\.lock\.json pins .*delete the entry "x\.zip"'):
        obtain(archive, patience=quick())
    first.path.write_bytes(OTHER)  # by hand is no way around it
    with pytest.raises(DataError, match="pins"):
        obtain(archive, patience=quick())
    assert json.loads((tmp_path / "datasets.lock.json").read_text()) == lock


def test_what_the_publisher_says_comes_first(site, tmp_path):
    with pytest.raises(DataError, match="md5 is"):
        obtain(entry(site, md5="0" * 32), patience=quick())
    with pytest.raises(DataError, match="offers 500 bytes, expected 501"):
        obtain(entry(site, size=501), patience=quick())
    assert not (tmp_path / "datasets.lock.json").exists()


def test_a_published_sha256_needs_no_pin(site, tmp_path):
    digest = obtain(entry(site), patience=quick()).checked.sha256
    (tmp_path / "datasets.lock.json").unlink()
    found = obtain(entry(site, sha256=digest), patience=quick())
    assert found.checked.confirmed and not (tmp_path / "datasets.lock.json").exists()


def test_a_file_put_there_by_hand_is_pinned_too(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "x.zip").write_bytes(CONTENT)
    obtain(entry())
    assert pins.pinned(entry()).url == "local"


def test_a_pin_decides_on_bytes_of_two_mirrors(site, tmp_path):
    obtain(entry(site), patience=quick()).path.unlink()
    (tmp_path / "downloads" / "x.zip.part").write_bytes(CONTENT[:100])
    obtain(entry(site), patience=quick())
    assert site.asked[-1][1] == "bytes=100-"


def test_pins_are_sorted_and_the_first_wins(tmp_path):
    for name in ("b", "a"):
        pins.pin_first(entry(name=name), A, MD5, 1, "local")
    pins.pin_first(entry(name="a"), A, MD5, 1, "https://elsewhere")
    lock = json.loads((tmp_path / "datasets.lock.json").read_text())
    assert list(lock["archives"]) == ["a", "b"] and lock["archives"]["a"]["url"] == "local"
    with pytest.raises(DataError, match="since another process downloaded it"):
        pins.pin_first(entry(name="a"), B, MD5, 1, "local")


def pin(number):
    pins.pin_first(entry(name=f"n{number}"), A, MD5, number, "local")


def test_parallel_fetches_lose_no_pin(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(pin, range(24))
    lock = json.loads((tmp_path / "datasets.lock.json").read_text())
    assert len(lock["archives"]) == 24


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"schema_version": 2, "archives": {}}',
        '{"schema_version": 1, "archives": {"x.zip": {"sha256": "short"}}}',
        '{"schema_version": 1, "archives": [1]}',
        "\udcff",
    ],
)
def test_a_damaged_lock_file_is_named_and_costs_no_download(content, site, tmp_path):
    (tmp_path / "datasets.lock.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"datasets\.lock\.json: not a lock file"):
        obtain(entry(site), patience=quick())
    assert site.asked == []
