"""A clean results tree, mirrored into a real MLflow store, made once for all audit tests."""

from pathlib import Path

import pytest
from copying import build, copy_tree
from faults import Tree
from results_tree import IMPORTED, JUDGED, LABELLED, MEASURED, PAIRED, TAUGHT, tiny_params
from sharing import original_tree, parsed_once  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def original_paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with mined pairs and runs that train on them."""
    return build(tmp_path_factory.mktemp("paired"), tiny_params(**PAIRED))


@pytest.fixture(scope="session")
def original_judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by every protocol, with floors and an image that is trained on and tested."""
    return build(tmp_path_factory.mktemp("judged"), tiny_params(**JUDGED))


@pytest.fixture(scope="session")
def original_imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a denoiser and encoders that were imported, one of them with labels."""
    return build(tmp_path_factory.mktemp("imported"), tiny_params(**IMPORTED))


@pytest.fixture(scope="session")
def original_measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with banks that are measured."""
    return build(tmp_path_factory.mktemp("measured"), tiny_params(**MEASURED))


@pytest.fixture(scope="session")
def original_taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a method that keeps a moving average and a queue."""
    return build(tmp_path_factory.mktemp("taught"), tiny_params(**TAUGHT))


@pytest.fixture(scope="session")
def original_labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same again, with pairs that a run with labels judged, and several recipes."""
    return build(tmp_path_factory.mktemp("labelled"), tiny_params(**LABELLED))


@pytest.fixture
def tree(original: Path, tmp_path: Path) -> Tree:
    """A copy of the tree that the test may damage."""
    return copy_tree(original, tmp_path)


@pytest.fixture
def paired_tree(original_paired: Path, tmp_path: Path) -> Tree:
    """A copy of the tree with pairs that the test may damage; audit it with PAIRED."""
    return copy_tree(original_paired, tmp_path)


@pytest.fixture
def judged_tree(original_judged: Path, tmp_path: Path) -> Tree:
    """A copy of the tree with every protocol that the test may damage; audit it with JUDGED."""
    return copy_tree(original_judged, tmp_path)


@pytest.fixture
def imported_tree(original_imported: Path, tmp_path: Path) -> Tree:
    """A copy of the tree with imports that the test may damage; audit it with IMPORTED."""
    return copy_tree(original_imported, tmp_path)


@pytest.fixture
def measured_tree(original_measured: Path, tmp_path: Path) -> Tree:
    """A copy of the tree with measured banks that the test may damage; audit it with MEASURED."""
    return copy_tree(original_measured, tmp_path)


@pytest.fixture
def taught_tree(original_taught: Path, tmp_path: Path) -> Tree:
    """A copy of the tree with a moving average that the test may damage; audit it with TAUGHT."""
    return copy_tree(original_taught, tmp_path)


@pytest.fixture
def labelled_tree(original_labelled: Path, tmp_path: Path) -> Tree:
    """A copy of the tree with labels that the test may damage; audit it with LABELLED."""
    return copy_tree(original_labelled, tmp_path)
