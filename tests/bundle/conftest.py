"""A tiny results tree, its bundle, and copies that tests may damage."""

from functools import cache
from pathlib import Path

import pytest
from bundling import pack
from copying import build, copy_tree
from injecting import Tree
from results_tree import tiny_params

from clsp.config.load import read_yaml
from clsp.report import page, published

PARSED = cache(read_yaml)


@pytest.fixture(autouse=True)
def parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing the repository's own YAML takes longer than the rest of a tiny audit."""
    for module in (page, published):
        monkeypatch.setattr(module, "read_yaml", PARSED)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that tests copy; nobody changes it."""
    return build(tmp_path_factory.mktemp("original"), tiny_params())


@pytest.fixture(scope="session")
def bundle(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle; nobody changes it."""
    tree = Tree(original / "results/tiny", original / "reports/tiny", original / "mlflow.db")
    return pack(tree, tmp_path_factory.mktemp("packed") / "tiny.zip")


@pytest.fixture
def tree(original: Path, tmp_path: Path) -> Tree:
    """A copy of the tree that the test may damage."""
    (tmp_path / "tree").mkdir()
    return copy_tree(original, tmp_path / "tree")
