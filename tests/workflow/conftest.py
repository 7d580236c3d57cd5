"""The suite, run once at its smallest, shared by the tests."""

import shutil

import pytest
from working_copy import Suite, copy_suite


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The suite after one complete run. Do not change it: take `suite` for that."""
    suite = copy_suite(tmp_path_factory.mktemp("finished") / "suite")
    suite.run("snakemake")
    return suite


@pytest.fixture
def suite(finished, tmp_path):
    """A private copy of the finished run; time stamps are kept."""
    folder = tmp_path / "suite"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Suite(folder)


@pytest.fixture
def fresh(tmp_path):
    """The suite as just cloned, nothing run yet."""
    return copy_suite(tmp_path / "suite")
