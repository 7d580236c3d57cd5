"""Downloads that were cut: continued where that is right, begun anew where it is not."""

import pytest
from downloading import CONTENT, OTHER, PATH, here, leave, lies_in
from mirror import Watch, quick
from servers import (
    cut,
    mixed,
    nameless,
    sending,
    serve,
    status,
    whole_only,
)

from clsp.data.download import obtain
from clsp.runtime.errors import DataError


def test_a_cut_connection_is_continued_at_once(site, folder):
    site.script[PATH] = [cut(300_000), serve]
    watch = Watch()
    assert obtain(here(site), folder, quick(watch)).path.read_bytes() == CONTENT
    assert [asked for _, asked, _ in site.asked] == [None, "bytes=300000-"]
    assert site.asked[1][2].startswith('"') and watch.slept == [1]


def test_an_interrupted_download_is_continued_by_the_next_run(site, folder):
    site.script[PATH] = [cut(300_000)]
    with pytest.raises(DataError, match=r"ended after 300000 of 512000 bytes, 2 times in a row"):
        obtain(here(site), folder, quick(tries=2))
    assert (folder / "good.tar.gz.part").stat().st_size == 300_000
    site.script[PATH] = [serve]
    obtain(here(site), folder, quick())
    assert site.asked[-1][1] == "bytes=300000-"
    assert lies_in(folder) == ["good.tar.gz"]


def test_a_server_that_cuts_often_is_followed_as_long_as_it_gives_something(site, folder):
    ends = range(50_000, 512_000, 50_000)
    site.script[PATH] = [*[cut(at) for at in ends], serve]
    watch = Watch()
    obtain(here(site), folder, quick(watch, tries=2, step=50_000))
    assert len(site.asked) == len(ends) + 1 and set(watch.slept) == {1}


def test_the_next_mirror_continues_where_the_first_ended(site, folder):
    site.files["/b"] = CONTENT
    site.script[PATH] = [cut(300_000), status(404)]
    obtain(here(site, PATH, "/b"), folder, quick())
    assert site.asked[-1] == ("/b", "bytes=300000-", None)  # the digest decides


def test_nothing_is_mixed_where_no_digest_could_tell(site, folder):
    site.files["/b"] = CONTENT
    site.script[PATH] = [cut(300_000), status(404)]
    obtain(here(site, PATH, "/b", sha256=None, md5=None), folder, quick())
    assert site.asked[-1] == ("/b", None, None)


def test_a_file_that_changes_between_the_parts(site, folder):
    site.script[PATH] = [sending(OTHER, ending=300_000), serve]
    path = obtain(here(site), folder, quick()).path
    assert path.read_bytes() == CONTENT
    assert site.asked[1][1] == "bytes=300000-"  # the server saw by If-Range that it is another


def test_a_changed_file_from_a_server_that_does_not_look(site, folder):
    site.script[PATH] = [sending(OTHER, ending=300_000), mixed, serve]
    assert obtain(here(site), folder, quick()).path.read_bytes() == CONTENT
    assert [asked for _, asked, _ in site.asked] == [None, "bytes=300000-", None]


def test_a_changed_file_without_any_validator(site, folder):
    leave(folder, OTHER[:300_000])
    site.script[PATH] = [nameless]
    assert obtain(here(site), folder, quick()).path.read_bytes() == CONTENT
    assert [asked for _, asked, _ in site.asked] == ["bytes=300000-", None]


def test_a_file_that_keeps_changing_is_given_up(site, folder):
    third = CONTENT[1:] + b"x"
    site.script[PATH] = [
        sending(OTHER, ending=300_000),
        sending(third, ending=200_000),
        sending(OTHER, ending=300_000),
    ]
    with pytest.raises(DataError, match="another file by now, after a new start"):
        obtain(here(site), folder, quick())
    assert len(site.asked) == 3


def test_without_validator_and_digest_it_starts_anew(site, folder):
    leave(folder, OTHER[:1000])
    obtain(here(site, sha256=None, md5=None), folder, quick())
    assert site.asked == [(PATH, None, None)]


def test_a_server_without_ranges_starts_anew(site, folder):
    site.script[PATH] = [cut(300_000, ranges=False), whole_only]
    assert obtain(here(site), folder, quick()).path.read_bytes() == CONTENT


@pytest.mark.parametrize("origin", ["not json", '{"url": 3}', ""])
def test_a_damaged_origin_is_as_good_as_none(site, folder, origin):
    leave(folder, CONTENT[:1000])
    (folder / "good.tar.gz.part.json").write_text(origin)
    assert obtain(here(site), folder, quick()).path.read_bytes() == CONTENT
    assert site.asked == [(PATH, "bytes=1000-", None)]


def test_a_range_that_the_server_cannot_give(site, folder):
    leave(folder, CONTENT[:-1])
    site.files[PATH] = CONTENT[:1000]
    with pytest.raises(DataError, match="offers 1000 bytes, expected 512000"):
        obtain(here(site), folder, quick())
    assert [asked for _, asked, _ in site.asked] == ["bytes=511999-", None]  # 416, then anew


def test_a_complete_part_is_only_checked(site, folder):
    leave(folder, CONTENT)
    obtain(here(site), folder, quick())
    assert site.asked == []


@pytest.mark.parametrize("start", [OTHER, OTHER + b"xx"])
def test_a_part_of_wrong_bytes_costs_one_new_start(site, folder, start):
    leave(folder, start)
    obtain(here(site), folder, quick())
    assert site.asked == [(PATH, None, None)]


def test_a_short_file_of_unknown_size(site, folder):
    site.script[PATH] = [cut(300_000), serve]
    assert obtain(here(site, size=None), folder, quick()).path.read_bytes() == CONTENT
