"""Miniatures that the tests of this folder share; nobody may change them."""

import pytest
import reading


@pytest.fixture(scope="session")
def miniature_of(tmp_path_factory):
    """Gives the folder of a kind's miniature, seed 0, drawn when it is first asked for."""
    home, drawn = tmp_path_factory.mktemp("miniatures"), {}

    def folder(kind):
        if kind not in drawn:
            drawn[kind] = reading.draw(kind, home / kind)
        return drawn[kind]

    return folder
