"""Headers of an archive that would take the memory or a manifest with them."""

import shutil
import tarfile

import pytest
from unpacking import make_tar, refuse, special, wanted

from clsp.data.extract import unpack
from clsp.runtime.canonical import canonical_json


@pytest.fixture
def home(tmp_path):
    return tmp_path


HEADERS = [
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
]


def long_header(kind, size):
    entry = special("x", kind)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT) + bytes(-(-size // 512) * 512)


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_takes_the_memory(kind, home):
    content = make_tar(home / "a.tar", [("a", b"x")], "w").read_bytes()
    (home / "a.tar").write_bytes(long_header(kind, 65537) + content)
    refuse(home / "a.tar", home, "extended header of 65537 bytes, more than the 65536 allowed")


def test_global_headers_count_together(home):
    content = make_tar(home / "a.tar", [("a", b"x")], "w").read_bytes()
    (home / "a.tar").write_bytes(long_header(tarfile.XGLTYPE, 40_000) * 2 + content)
    refuse(home / "a.tar", home, "extended header of 80000 bytes")


def test_a_sparse_map_is_not_read(home):
    entry = tarfile.TarInfo("a")
    entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    with tarfile.open(home / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(entry)
    refuse(home / "a.tar", home, "'a' is a sparse file")


def test_long_names_are_read(home):
    name = "d" * 150 + "/" + "f" * 200
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(home / "a.tar", "w", format=form) as archive:
            archive.addfile(tarfile.TarInfo(name))
        assert unpack(home / "a.tar", home / "out").files == 1
        shutil.rmtree(home / "out")


def test_names_that_are_not_utf8(home):
    members = [("a", b"x"), ("b\udcff", b"y")]
    path = make_tar(home / "a.tar", members, "w")
    found = unpack(path, home / "out", wanted("a"))
    assert found.examples == ("b\\udcff",) and canonical_json(found.record())
    shutil.rmtree(home / "out")
    refuse(path, home, "name that is not UTF-8")
