"""Fixtures that several folders of tests share; their conftest.py imports them."""

from functools import cache
from pathlib import Path

import pytest
from copying import build
from results_tree import tiny_params

from clsp.config.load import read_yaml
from clsp.report import page, published

PARSED = cache(read_yaml)


@pytest.fixture(autouse=True)
def parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing the repository's own YAML takes longer than the rest of a tiny audit."""
    for module in (page, published):
        monkeypatch.setattr(module, "read_yaml", PARSED)


@pytest.fixture(scope="session", name="original")
def original_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that tests copy; nobody changes it."""
    return build(tmp_path_factory.mktemp("original"), tiny_params())
