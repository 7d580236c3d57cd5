"""Servers that say odd things, or nothing, of what they send; and folders that cannot be written."""

import errno
import os
from pathlib import Path

import pytest
from downloading import CONTENT, PATH, here, leave
from mirror import Site, Watch, quick
from servers import cut, redirect, serve, stall, status, with_headers, wordy

from clsp.data import partial, pins
from clsp.data.download import obtain
from clsp.data.request import one_line
from clsp.runtime.errors import DataError

UNKNOWN = {"size": None, "sha256": None, "md5": None}


@pytest.fixture
def site(site):
    """The same with a mirror beside it."""
    site.files["/b"] = CONTENT
    return site


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_the_body_of_a_redirect_is_not_read(site, folder, code):
    sent = []
    site.script["/moved"] = [wordy(site.url(PATH), sent, code)]
    assert obtain(here(site, "/moved"), folder, quick()).path.read_bytes() == CONTENT
    assert sum(sent) < 48 << 20  # what the buffers between us took


@pytest.mark.parametrize(
    "odd",
    [
        redirect("http://[::1/x"),
        redirect("http://127.0.0.1:port/x"),
        with_headers(Content_Length="\u00b2"),
        with_headers(206, Content_Range="bytes 0-\u00b2/9"),
        status(503, Retry_After="\u00b2"),
        status(503, Retry_After="9" * 400),
        with_headers(ETag='"a\r\n b"'),
    ],
)
def test_odd_headers_cost_no_more_than_the_mirror(site, folder, odd):
    site.script[PATH] = [odd]
    assert obtain(here(site, PATH, "/b"), folder, quick()).path.read_bytes() == CONTENT


def test_the_words_of_a_server_take_one_line():
    assert one_line("a\r\n  b\x1b[31m\tc ") == "a b [31m c"


def test_an_empty_file_is_refused(site, folder):
    site.files[PATH] = b""
    site.script[PATH] = [with_headers(), with_headers(Content_Length="0")]
    for _ in range(2):
        with pytest.raises(DataError, match="sends an empty file"):
            obtain(here(site, **UNKNOWN), folder, quick())
    assert pins.pinned(here(site)) is None


def test_a_packed_transfer_is_refused_where_nothing_could_tell(site, folder):
    site.script[PATH] = [with_headers(Content_Encoding="gzip")]
    with pytest.raises(DataError, match="sends the file packed as 'gzip'"):
        obtain(here(site, **UNKNOWN), folder, quick())
    assert obtain(here(site), folder, quick()).path.read_bytes() == CONTENT


def test_a_file_of_which_nobody_knows_the_length_is_not_pinned(site, folder):
    site.script[PATH] = [with_headers(ending=1000)]
    found = obtain(here(site, **UNKNOWN), folder, quick()).checked
    assert found.size == 1000 and not found.record()["pinned"]
    assert pins.pinned(here(site)) is None
    (folder / "good.tar.gz").unlink()
    site.script[PATH] = [serve]
    assert obtain(here(site, **UNKNOWN), folder, quick()).checked.record()["pinned"]
    assert pins.pinned(here(site)).size == len(CONTENT)


def test_the_end_of_a_range_says_how_much_is_to_come(site, folder):
    last = {"ETag": '"x"', "Content_Range": f"bytes 1000-{len(CONTENT) - 1}/*"}

    def range_of(ending=None):
        return lambda handler, content: with_headers(206, ending, **last)(handler, content[1000:])

    leave(folder, CONTENT[:1000], site, '"\\"x\\""')
    site.script[PATH] = [range_of(10)]
    with pytest.raises(DataError, match=r"the connection ended after 1010 of 512000 bytes"):
        obtain(here(site, **UNKNOWN), folder, quick(tries=1))
    leave(folder, CONTENT[:1000], site, '"\\"x\\""')
    site.script[PATH] = [range_of()]
    assert obtain(here(site, **UNKNOWN), folder, quick()).path.read_bytes() == CONTENT


def test_a_whole_part_of_unknown_size_is_checked_first(site, folder):
    leave(folder, CONTENT)
    assert obtain(here(site, size=None), folder, quick()).path.read_bytes() == CONTENT
    assert [asked for _, asked, _ in site.asked] == ["bytes=512000-"]


def test_a_wrong_part_of_unknown_size_starts_anew(site, folder):
    leave(folder, CONTENT[::-1])
    assert obtain(here(site, size=None), folder, quick()).path.read_bytes() == CONTENT
    assert [asked for _, asked, _ in site.asked] == ["bytes=512000-", None]


def test_a_part_survives_a_damaged_lock_file(site, folder, monkeypatch):
    def damaged(*arguments):
        raise DataError("datasets.lock.json: not a lock file")

    monkeypatch.setattr(pins, "compare", damaged)
    with pytest.raises(DataError, match="not a lock file"):
        obtain(here(site, sha256=None), folder, quick())
    assert (folder / "good.tar.gz.part").read_bytes() == CONTENT


def test_what_is_kept_is_told(site, folder):
    site.script[PATH] = [cut(1000)]
    with pytest.raises(DataError, match=r"part holds 1000 bytes, which another run continues"):
        obtain(here(site), folder, quick(tries=1))


def test_silence_ends_the_second_visit_too(site, folder):
    site.script[PATH] = [stall]
    watch = Watch()
    with pytest.raises(DataError, match=r"sent nothing(?s:.*)sent nothing"):
        obtain(here(site), folder, quick(watch))
    assert len(site.asked) == 2


def test_a_disk_that_fails_is_not_the_servers_fault(site, folder, monkeypatch):
    def full(path, *arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(partial, "open", full, raising=False)
    with pytest.raises(DataError, match=r"good\.tar\.gz\.part: cannot be written \(No space left"):
        obtain(here(site, PATH, "/b"), folder, quick())
    assert len(site.asked) == 1


def test_an_archive_by_hand_may_lie_where_nothing_can_be_written(folder, tmp_path, monkeypatch):
    folder.mkdir()
    (folder / "good.tar.gz").write_bytes(CONTENT)
    folder.chmod(0o555)  # root may write all the same: the listing tells
    monkeypatch.chdir(tmp_path)
    with Site() as site:
        assert obtain(here(site), folder, quick()).url == "local"
    assert [path.name for path in folder.iterdir()] == ["good.tar.gz"]


def test_no_lock_stays_behind(site, folder):
    obtain(here(site), folder, quick())
    assert [path.name for path in folder.iterdir()] == ["good.tar.gz"]


def test_a_folder_in_the_place_of_an_archive(site, folder):
    Path(folder / "good.tar.gz").mkdir(parents=True)
    with pytest.raises(DataError, match=r"is a folder, expected the archive itself; move it away"):
        obtain(here(site), folder, quick())
