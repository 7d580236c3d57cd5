"""Every method resumes in a new process as if nothing had happened, key by key."""

import os
import subprocess
import sys

import pytest
import torch
from pretraining import ROOT
from resume_child import WHOLE, advance, start, whole_state

from clsp.config.schema import METHODS
from clsp.runtime.registry import names


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Folder with the states of all methods, reached through two processes."""
    folder = tmp_path_factory.mktemp("halves")
    script = ROOT / "tests/support/resume_child.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for part in ("first", "second"):
        command = [sys.executable, str(script), part, str(folder)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("method", names(METHODS))
def test_two_processes_equal_the_straight_run(resumed, method):
    setup = start(method)
    advance(setup, 0, WHOLE)
    expected = whole_state(setup)
    found = torch.load(resumed / f"{method}.pt", weights_only=True)
    assert found.keys() == expected.keys()
    assert [key for key in found if not torch.equal(found[key], expected[key])] == []
    assert any(key.startswith("optimizer.") for key in found)
