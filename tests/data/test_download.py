"""Downloads from a server on this machine: resumed, checked, and refused where they are wrong."""

import dataclasses
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clsp.data.catalog import Archive
from clsp.data.download import obtain
from clsp.runtime.errors import DataError

CONTENT = bytes(range(256)) * 2000  # 512 kB
HTTP = ("http",)


class Site(BaseHTTPRequestHandler):
    """Serves CONTENT at /good.tar.gz; `server.asked` records the Range of each request."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        if self.path.startswith("/redirect/"):
            self.send_response(302)
            self.send_header("Location", self.server.elsewhere)
            self.end_headers()
            return
        if self.path == "/gone/good.tar.gz":
            self.send_error(404)
            return
        start = int(asked[6:-1]) if asked and self.server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            shown = start + self.server.shift
            self.send_header("Content-Range", f"bytes {shown}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.server.stop_after])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # locks lie below the working folder
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.asked, server.ranges, server.shift = [], True, 0
    server.stop_after, server.elsewhere = len(CONTENT), ""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def archive_at(site, place="", **changes):
    known = Archive(
        url=f"http://127.0.0.1:{site.server_port}/{place}good.tar.gz",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        md5=hashlib.md5(CONTENT).hexdigest(),
        folder="",
        prefix="",
        hosts=("127.0.0.1",),
        checked="here",
    )
    return dataclasses.replace(known, **changes)


def test_a_download_and_then_the_cache(site, tmp_path):
    path, digest = obtain(archive_at(site), tmp_path / "cache", HTTP)
    assert path.read_bytes() == CONTENT
    assert digest == hashlib.sha256(CONTENT).hexdigest()
    assert obtain(archive_at(site), tmp_path / "cache", HTTP) == (path, digest)
    assert len(site.asked) == 1
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["good.tar.gz"]


def test_an_interrupted_download_is_continued(site, tmp_path):
    site.stop_after = 300_000
    with pytest.raises(DataError, match="after 300000 of 512000 bytes; run again to continue"):
        obtain(archive_at(site), tmp_path / "cache", HTTP)
    assert (tmp_path / "cache/good.tar.gz.part").stat().st_size == 300_000
    site.stop_after = len(CONTENT)
    path, _ = obtain(archive_at(site), tmp_path / "cache", HTTP)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in site.asked] == [None, "bytes=300000-"]


def test_a_server_without_ranges_starts_anew(site, tmp_path):
    site.ranges = False
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/good.tar.gz.part").write_bytes(CONTENT[:1000])
    path, _ = obtain(archive_at(site), tmp_path / "cache", HTTP)
    assert path.read_bytes() == CONTENT


def test_a_range_that_does_not_fit_is_refused(site, tmp_path):
    site.shift = 7
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/good.tar.gz.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DataError, match="asked for bytes from 1000"):
        obtain(archive_at(site), tmp_path / "cache", HTTP)
    assert (tmp_path / "cache/good.tar.gz.part").read_bytes() == CONTENT[:1000]


def test_a_complete_part_is_only_checked(site, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/good.tar.gz.part").write_bytes(CONTENT)
    obtain(archive_at(site), tmp_path / "cache", HTTP)
    assert site.asked == []


def test_wrong_bytes_are_not_kept(site, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/good.tar.gz.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="sha256 is"):
        obtain(archive_at(site), tmp_path / "cache", HTTP)
    assert list((tmp_path / "cache").iterdir()) == []
    obtain(archive_at(site), tmp_path / "cache", HTTP)


@pytest.mark.parametrize("name", ["sha256", "md5"])
def test_each_digest_is_checked(site, tmp_path, name):
    wrong = archive_at(site, **{name: "0" * (64 if name == "sha256" else 32)})
    with pytest.raises(DataError, match=f"{name} is .* expected 000"):
        obtain(wrong, tmp_path / "cache", HTTP)


def test_unconfirmed_archives_report_their_digest(site, tmp_path):
    loose = archive_at(site, size=None, sha256=None, md5=None)
    _, digest = obtain(loose, tmp_path / "cache", HTTP)
    assert digest == hashlib.sha256(CONTENT).hexdigest()


def test_more_than_the_known_size_is_stopped(site, tmp_path):
    with pytest.raises(DataError, match="sends more than 1000 bytes"):
        obtain(archive_at(site, size=1000), tmp_path / "cache", HTTP)


def test_an_archive_put_there_by_hand(site, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/good.tar.gz").write_bytes(CONTENT)
    obtain(archive_at(site), tmp_path / "cache", HTTP)
    assert site.asked == []
    (tmp_path / "cache/good.tar.gz").write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"511999 bytes, expected 512000; delete that file"):
        obtain(archive_at(site), tmp_path / "cache", HTTP)


def test_only_https_by_default(site, tmp_path):
    with pytest.raises(DataError, match="only https addresses"):
        obtain(archive_at(site), tmp_path / "cache")
    with pytest.raises(DataError, match="only https"):
        obtain(archive_at(site, url="file:///etc/passwd"), tmp_path / "cache")
    assert site.asked == []


@pytest.mark.parametrize("to", ["https://example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_elsewhere_are_refused(site, tmp_path, to):
    site.elsewhere = to
    with pytest.raises(DataError, match=r"is not among|only http|not allowed"):
        obtain(archive_at(site, "redirect/"), tmp_path / "cache", HTTP)


def test_a_redirect_on_the_same_host_is_followed(site, tmp_path):
    site.elsewhere = archive_at(site).url
    path, _ = obtain(archive_at(site, "redirect/"), tmp_path / "cache", HTTP)
    assert path.read_bytes() == CONTENT


def test_a_server_error_tells_the_way_by_hand(site, tmp_path):
    with pytest.raises(DataError, match=r"404.*put it at .*good\.tar\.gz"):
        obtain(archive_at(site, "gone/"), tmp_path / "cache", HTTP)


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    closed = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    archive = archive_at(closed)
    closed.server_close()
    with pytest.raises(DataError, match="download failed"):
        obtain(archive, tmp_path / "cache", HTTP)
