"""What the tests of this folder share: miniatures, which nobody may change, and a small server."""

import pytest
import reading
from downloading import CONTENT, PATH
from mirror import Site


@pytest.fixture(scope="session")
def miniature_of(tmp_path_factory):
    """Gives the folder of a kind's miniature, seed 0, drawn when it is first asked for."""
    home, drawn = tmp_path_factory.mktemp("miniatures"), {}

    def folder(kind):
        if kind not in drawn:
            drawn[kind] = reading.draw(kind, home / kind)
        return drawn[kind]

    return folder


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server with one file, and a working folder of its own."""
    monkeypatch.chdir(tmp_path)  # locks and pins lie below the working folder
    with Site() as server:
        server.files[PATH] = CONTENT
        yield server


@pytest.fixture
def folder(tmp_path):
    """Where downloads go."""
    return tmp_path / "cache"
