"""A tiny results tree, its bundle, and copies that tests may damage."""

from pathlib import Path

import pytest
from bundling import pack
from copying import copy_tree
from injecting import Tree
from sharing import original_tree, parsed_once  # noqa: F401 - fixtures


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
