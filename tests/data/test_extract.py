"""Hostile and damaged archives write nothing outside the target, and nothing half; honest ones do."""

import errno
import os
import stat
import tarfile
import zipfile

import pytest
from unpacking import make_tar, make_zip, refuse, special, wanted

from clsp.config.catalog import Members
from clsp.data import extract
from clsp.data.extract import unpack, whole, write_members
from clsp.data.members import Limits, expression
from clsp.runtime.errors import DataError


@pytest.fixture
def home(tmp_path):
    """A folder for archives; the fixture makes sure that nothing else appears in it or above it."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "victim").write_text("untouched")
    yield folder
    found = {path.name for path in folder.iterdir()} - {"out"}
    assert all(name.startswith("a.") for name in found), found
    assert {path.name for path in tmp_path.iterdir()} == {"home", "victim"}
    assert (tmp_path / "victim").read_text() == "untouched"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_tar_is_unpacked(mode, home):
    folder = special("d/sub", tarfile.DIRTYPE)
    path = make_tar(home / "a.tar", [folder, ("./d/a", b"1"), ("d/sub/b", b"22")], mode)
    found = unpack(path, home / "out")
    assert (found.files, found.size, found.left_out) == (2, 3, 0)
    assert (home / "out/d/sub/b").read_bytes() == b"22"


def test_a_zip_is_unpacked(home):
    path = make_zip(home / "a.zip", [("d/", ""), ("d/a", "1")])
    assert unpack(path, home / "out").files == 1
    assert (home / "out/d/a").read_text() == "1"


def test_an_empty_target_is_as_good_as_none_and_a_full_one_is_kept(home):
    path = make_zip(home / "a.zip", [("a", "1")])
    (home / "out").mkdir()
    unpack(path, home / "out")
    (home / "out" / "a").write_text("mine")
    with pytest.raises(DataError, match="is there already; delete it first"):
        unpack(path, home / "out")
    assert (home / "out" / "a").read_text() == "mine"


def test_a_target_that_is_a_link_is_not_followed(home):
    path = make_zip(home / "a.zip", [("a", "1")])
    (home / "a.folder").mkdir()
    (home / "out").symlink_to(home / "a.folder")
    with pytest.raises(DataError, match="is there already"):
        unpack(path, home / "out")
    assert list((home / "a.folder").iterdir()) == []


def test_modes_are_fixed(home):
    entry = tarfile.TarInfo("d/a")
    entry.mode, old = 0o4777, os.umask(0o077)
    try:
        unpack(make_tar(home / "a.tar", [entry]), home / "out")
    finally:
        os.umask(old)
    assert stat.S_IMODE((home / "out/d/a").stat().st_mode) == 0o644
    assert stat.S_IMODE((home / "out/d").stat().st_mode) == 0o755
    assert stat.S_IMODE((home / "out").stat().st_mode) == 0o755


def test_only_what_is_on_the_list(home):
    members = [("d/a.jpg", b"1"), ("d/x/b.jpg", b"2"), ("__MACOSX/x", b"3"), ("dd/a.jpg", b"4")]
    found = unpack(make_tar(home / "a.tar.gz", members), home / "out", wanted("d/*.jpg", "d/*/*"))
    assert found.by_pattern == {"d/*.jpg": 1, "d/*/*": 1}
    assert (found.left_out, found.examples) == (2, ("__MACOSX/x", "dd/a.jpg"))
    assert sorted(p.name for p in (home / "out").rglob("*")) == ["a.jpg", "b.jpg", "d", "x"]


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a/*.jpg", "a/b.jpg", True),
        ("a/*.jpg", "a/b/c.jpg", False),
        ("a/**.jpg", "a/b/c.jpg", True),
        ("a/*.jpg", "a/bxjpg", False),
        ("a/b.jpg", "a/b.jpg\n", False),
        ("a/[b]", "a/b", False),
        ("*", "", True),
    ],
)
def test_patterns(pattern, name, fits):
    assert bool(expression(pattern).fullmatch(name)) is fits


@pytest.mark.parametrize(
    ("listed", "match"),
    [
        (Members(pattern="d/*", count=3), "holds 2 files 'd/\\*', expected 3"),
        (Members(pattern="d/*", count=1), "holds more than 1 files 'd/\\*'"),
        (Members(pattern="d/*", most=1), "holds more than 1 files 'd/\\*'"),
        (Members(pattern="e/*"), "holds no files 'e/\\*'"),
    ],
)
def test_another_number_than_expected(listed, match, home):
    path = make_tar(home / "a.tar.gz", [("d/a", b"1"), ("d/b", b"2")])
    refuse(path, home, match, [listed])


@pytest.mark.parametrize(
    "name", ["/abs", "../victim", "d/../../victim", "d\\..\\up", "..", "a\nb", "//x"]
)
@pytest.mark.parametrize("members", [(), wanted("d/*")])
def test_names_that_leave_the_folder(name, members, home):
    first = ("d/first", b"x")
    refuse(make_tar(home / "a.tar.gz", [first, (name, b"x")]), home, "unsafe member", members)
    refuse(make_zip(home / "a.zip", [first, (name, b"x")]), home, "unsafe member", members)


@pytest.mark.parametrize("name", ["../up", "/up", "d\\up"])
def test_unsafe_folders_are_refused_too(name, home):
    members = [special(name, tarfile.DIRTYPE), ("a", b"")]
    refuse(make_tar(home / "a.tar", members, "w"), home, "unsafe member")
    refuse(make_zip(home / "a.zip", [(f"{name}/", b""), ("a", b"")]), home, "unsafe member")


def test_folders_count_as_members(home):
    folders = [f"d{number}" for number in range(5)]
    tarred = [special(name, tarfile.DIRTYPE) for name in folders]
    path = make_tar(home / "a.tar", [*tarred, ("a", b"")], "w")
    refuse(path, home, "more than 4 members", limits=Limits(members=4))
    path = make_zip(home / "a.zip", [*[(f"{name}/", b"") for name in folders], ("a", b"")])
    refuse(path, home, "more than 4 members", limits=Limits(members=4))
    assert unpack(path, home / "out", limits=Limits(members=6)).files == 1


def test_the_folder_itself_may_be_a_member(home):
    path = make_tar(home / "a.tar", [special(".", tarfile.DIRTYPE), ("./a", b"x")], "w")
    assert unpack(path, home / "out").files == 1


KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]


@pytest.mark.parametrize("kind", [*KINDS, tarfile.GNUTYPE_SPARSE])
def test_links_and_devices(kind, home):
    entry = special("d", kind, str(home.parent / "victim"))
    path = make_tar(home / "a.tar", [("first", b"x"), entry, ("d/passwd", b"x")], "w")
    with pytest.raises(DataError, match=r"link or device|cannot be unpacked"):
        unpack(path, home / "out")
    assert not (home / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_unlisted_links_and_devices_are_left_out(kind, home):
    entry = special("d", kind, str(home.parent))
    path = make_tar(home / "a.tar", [entry, ("d/victim", b"x")], "w")
    found = unpack(path, home / "out", wanted("d/*"))
    assert (found.files, found.left_out) == (1, 1)
    assert (home / "out" / "d").is_dir() and not (home / "out" / "d").is_symlink()


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_link_or_device_in_a_zip(mode, home):
    entry = zipfile.ZipInfo("link")
    entry.create_system, entry.external_attr = 3, (mode | 0o777) << 16
    refuse(make_zip(home / "a.zip", [(entry, "/etc/passwd")]), home, "link or device")


def test_an_existing_link_is_not_followed(home):
    room = home / "a.room"
    room.mkdir()
    (room / "a").symlink_to(home.parent / "victim")
    path = make_tar(home / "a.tar", [("a", b"x")], "w")
    with pytest.raises(DataError, match="is there already"):
        write_members(path, room)


def test_two_members_of_one_name(home):
    path = make_tar(home / "a.tar", [("a", b"x"), ("./a", b"y")], "w")
    refuse(path, home, "two members are named 'a'")
    with pytest.warns(UserWarning, match="Duplicate name"):
        make_zip(home / "a.zip", [("a", b"x"), ("a", b"y")])
    refuse(home / "a.zip", home, "two members are named 'a'")


def test_a_file_where_another_has_its_folder(home):
    refuse(make_tar(home / "a.tar", [("a", b"x"), ("a/b", b"y")], "w"), home, "cannot be unpacked")


def test_limits(home):
    path = make_tar(home / "a.tar", [(f"f{i}", b"x" * 100) for i in range(5)], "w")
    refuse(path, home, "more than 4 files", limits=Limits(files=4))
    refuse(path, home, "more than 4 members", wanted("f0"), Limits(members=4))
    refuse(path, home, "more data than expected", limits=Limits(size=499))
    assert unpack(path, home / "out", limits=Limits(files=5, size=500)).files == 5


@pytest.mark.parametrize("members", [(), wanted("small")])
def test_a_ratio_bomb(members, home):
    path = make_tar(home / "a.tar.gz", [("zeros", bytes(20 << 20)), ("small", b"x")])
    assert path.stat().st_size < 100_000
    refuse(path, home, "more data than expected", members)


def test_a_zip_that_lies_about_its_size(home):
    with zipfile.ZipFile(home / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(20 << 20))
    content = (home / "a.zip").read_bytes()
    true_size = (20 << 20).to_bytes(4, "little")
    (home / "a.zip").write_bytes(content.replace(true_size, (10).to_bytes(4, "little")))
    refuse(home / "a.zip", home, "cannot be unpacked|more data than expected")


def test_a_bomb_of_many_members(home):
    path = make_tar(home / "a.tar.gz", [(f"{i}", b"") for i in range(3000)])
    assert path.stat().st_size < 50_000
    refuse(path, home, "more than 10 files '\\*'", [Members(pattern="*", most=10)])
    refuse(path, home, "more than 2000 members", wanted("x"), Limits(members=2000))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_a_damaged_archive_is_named_and_leaves_nothing(name, home):
    path = home / name
    if name == "a.zip":
        make_zip(path, [("first", "x"), ("a", "x" * 5000)])
        content = bytearray(path.read_bytes())
        content[200] ^= 0xFF  # the data no longer fit their checksum
    else:
        make_tar(path, [("first", b"x"), ("a", bytes(range(256)) * 400)])
        content = path.read_bytes()[:-200]
    path.write_bytes(content)
    refuse(path, home, f"{name}: cannot be unpacked")


def test_an_encrypted_zip(home):
    content = bytearray(make_zip(home / "a.zip", [("a", "x")]).read_bytes())
    content[6] |= 1  # the flag, in the member's header and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (home / "a.zip").write_bytes(content)
    refuse(home / "a.zip", home, "cannot be unpacked")


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", b"", bytes(5000), b"PK\x05\x06" + bytes(18)]
)
def test_not_an_archive(content, home):
    (home / "a.tar.gz").write_bytes(content)
    refuse(home / "a.tar.gz", home, "cannot be unpacked|holds no files")


def test_what_an_earlier_attempt_left_is_swept(home):
    (home / ".out.unpacking").mkdir()
    (home / ".out.unpacking" / "half").write_text("x")
    unpack(make_zip(home / "a.zip", [("a", "1")]), home / "out")
    assert [path.name for path in (home / "out").iterdir()] == ["a"]


def test_a_failure_in_the_block_leaves_nothing(home):
    with pytest.raises(KeyboardInterrupt), whole(home / "out") as room:
        (room / "a").write_text("x")
        raise KeyboardInterrupt
    assert list(home.iterdir()) == []


def test_a_full_disk_is_not_the_archives_fault(home, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = make_zip(home / "a.zip", [("a", "1")])
    monkeypatch.setattr(extract, "_create", full)
    with pytest.raises(DataError, match=r"unpacking/a: cannot be written \(No space left"):
        unpack(path, home / "out")
