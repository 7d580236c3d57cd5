"""Hostile and damaged archives are refused; honest ones are unpacked."""

import io
import stat
import tarfile
import zipfile

import pytest

from clsp.data.extract import Limits, unpack
from clsp.runtime.errors import DataError


def make_tar(path, members, mode="w:gz"):
    """Members: (name, bytes) or a TarInfo."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def special(name, kind, target=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_is_unpacked(mode, tmp_path):
    folder = special("d/sub", tarfile.DIRTYPE)
    path = make_tar(tmp_path / "a.tar", [folder, ("./d/a", b"1"), ("d/sub/b", b"22")], mode)
    assert unpack(path, tmp_path / "out", "d/") == 2
    assert (tmp_path / "out/d/sub/b").read_bytes() == b"22"


def test_members_outside_the_prefix_stay(tmp_path):
    path = make_tar(tmp_path / "a.tar.gz", [("d/a", b"1"), ("__MACOSX/x", b"2"), ("dd/x", b"3")])
    assert unpack(path, tmp_path / "out", "d/") == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["d"]


def test_a_zip_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("d/", "")
        archive.writestr("d/a", "1")
    assert unpack(tmp_path / "a.zip", tmp_path / "out") == 1
    assert (tmp_path / "out/d/a").read_text() == "1"


@pytest.mark.parametrize("name", ["/abs", "../up", "d/../../up", "d\\..\\up"])
def test_names_that_leave_the_folder(name, tmp_path):
    path = make_tar(tmp_path / "a.tar.gz", [(name, b"x")])
    with pytest.raises(DataError, match="unsafe member name"):
        unpack(path, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(DataError, match="unsafe member name"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz", "a.zip", "out"]


def test_an_unsafe_folder_is_refused_too(tmp_path):
    path = make_tar(tmp_path / "a.tar", [special("../up", tarfile.DIRTYPE), ("a", b"")], "w")
    with pytest.raises(DataError, match="unsafe"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices(kind, tmp_path):
    path = make_tar(tmp_path / "a.tar", [special("d", kind, "/etc"), ("d/passwd", b"x")], "w")
    with pytest.raises(DataError, match="link or device"):
        unpack(path, tmp_path / "out")


def test_a_link_in_a_zip(tmp_path):
    entry = zipfile.ZipInfo("link")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(DataError, match="link or device"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_an_existing_link_is_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "victim")
    path = make_tar(tmp_path / "a.tar", [("a", b"x")], "w")
    with pytest.raises(DataError):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "victim").exists()


def test_two_members_of_one_name(tmp_path):
    path = make_tar(tmp_path / "a.tar", [("a", b"x"), ("./a", b"y")], "w")
    with pytest.raises(DataError, match="two members"):
        unpack(path, tmp_path / "out")


def test_limits(tmp_path):
    path = make_tar(tmp_path / "a.tar", [(f"f{i}", b"x" * 100) for i in range(5)], "w")
    with pytest.raises(DataError, match="more than 4 files"):
        unpack(path, tmp_path / "one", limits=Limits(files=4))
    with pytest.raises(DataError, match="more data than expected"):
        unpack(path, tmp_path / "two", limits=Limits(size=499))
    assert unpack(path, tmp_path / "three", limits=Limits(files=5, size=500)) == 5


def test_a_bomb(tmp_path):
    path = make_tar(tmp_path / "a.tar.gz", [("zeros", bytes(20 << 20))])
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="more data than expected"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_a_damaged_archive_is_named(name, tmp_path):
    path = tmp_path / name
    if name == "a.zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", "x" * 5000)
        content = bytearray(path.read_bytes())
        content[100] ^= 0xFF  # the data no longer fit their checksum
    else:
        make_tar(path, [("a", bytes(range(256)) * 400)])
        content = path.read_bytes()[:-200]
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: cannot be unpacked"):
        unpack(path, tmp_path / "out")


def test_not_an_archive(tmp_path):
    (tmp_path / "a.tar.gz").write_text("<html>404</html>")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_nothing_below_the_prefix(tmp_path):
    path = make_tar(tmp_path / "a.tar", [("x/a", b"1")], "w")
    with pytest.raises(DataError, match="no files below 'd/'"):
        unpack(path, tmp_path / "out", "d/")
