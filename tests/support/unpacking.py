"""Archives that tests unpack, and a check that one is refused."""

import io
import tarfile
import zipfile

import pytest

from clsp.config.catalog import Members
from clsp.data.extract import unpack
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


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def special(name, kind, target=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def wanted(*patterns):
    return [Members(pattern=pattern) for pattern in patterns]


def refuse(archive, home, match, members=(), limits=None):
    with pytest.raises(DataError, match=match) as caught:
        unpack(archive, home / "out", members, limits)
    assert str(archive) in str(caught.value)
    assert not (home / "out").exists()
