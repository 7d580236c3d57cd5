"""The suite, run once at its smallest, shared by the tests."""

import fcntl
import os
import shutil

import pytest
from working_copy import Suite, copy_suite


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The suite after one complete run. Do not change it: take `suite` for that.

    Made once, also where several processes share the tests (pytest-xdist).
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    suite, done = Suite(root / "finished-suite"), root / "finished-suite.done"
    with open(root / "finished-suite.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(suite.folder, ignore_errors=True)
            copy_suite(suite.folder)
            suite.run("snakemake")
            done.touch()
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
