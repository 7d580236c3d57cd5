"""Killed jobs and a killed Snakemake leave nothing half-written, and the next call carries on."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def _wait_for(condition, seconds=300):  # a hang, not a speed
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("waited in vain")


def _jobs(folder):
    """Pids of train-denoiser jobs that work in a folder."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _is_job(entry, folder)]


def _is_job(entry, folder):
    try:
        command = (entry / "cmdline").read_bytes().split(b"\0")
        return b"train-denoiser" in command and (entry / "cwd").readlink() == folder
    except OSError:  # it has just ended
        return False


def _train(suite, epochs):
    def only_digits(params):
        params["denoisers"]["digits"].update(epochs=epochs)
        params["datasets"] = {"digits": params["datasets"]["digits"]}
        params["evaluation"]["transfer"] = None
        params.update(quality=None, tables=["main"], figures=[])

    suite.params(only_digits)
    process = suite.start("snakemake", "diffusion", CLSP_SAVE_EVERY="0.2")

    def begun():
        states = list(suite.folder.glob(".clsp/scratch/smoke/train-denoiser.*/*/latest"))
        return states and _jobs(suite.folder)

    return process, _wait_for(begun)[0]


@pytest.fixture
def training(fresh):
    """Snakemake in the middle of training a denoiser that would take for ever."""
    process, pid = _train(fresh, 100_000)
    yield fresh, process, pid
    process.kill()
    for job in _jobs(fresh.folder):
        os.kill(job, signal.SIGKILL)


def _nothing_final(suite):
    folder = suite.folder / "results/smoke/denoisers/digits"
    return [p.name for p in folder.glob("*") if not p.name.startswith(".partial")] == []


def _carries_on(suite):
    suite.params(lambda p: p["denoisers"]["digits"].update(epochs=1))
    suite.run("snakemake", "diffusion")
    folder = suite.folder / "results/smoke/denoisers/digits"
    assert (folder / "manifest.json").exists()
    assert not list(folder.glob(".partial*"))


def _weights(suite):
    path = suite.folder / "results/smoke/denoisers/digits/manifest.json"
    return json.loads(path.read_text())["predicate"]["facts"]["tensors_sha256"]


def test_a_killed_job_is_continued_and_ends_as_if_never_killed(fresh):
    epochs = 30
    process, pid = _train(fresh, epochs)
    os.kill(pid, signal.SIGKILL)
    assert process.wait(60) == 1
    assert _nothing_final(fresh)
    (state,) = fresh.folder.glob(".clsp/scratch/smoke/train-denoiser.*/*")
    assert list(state.iterdir())
    fresh.run("snakemake", "diffusion")
    resumed = _weights(fresh)
    assert not list(fresh.folder.glob(".clsp/scratch/smoke/*"))
    fresh.run("snakemake", "diffusion", "--forcerun", "train_denoiser")
    assert _weights(fresh) == resumed


def test_a_terminated_job_sweeps_up_and_says_so(training):
    suite, process, pid = training
    os.kill(pid, signal.SIGTERM)
    assert process.wait(60) == 1
    assert _nothing_final(suite)
    assert not list((suite.folder / "results/smoke/denoisers/digits").glob(".partial*"))


def test_a_killed_snakemake_takes_its_jobs_along(training):
    suite, process, _ = training
    process.kill()
    process.wait()
    _wait_for(lambda: not _jobs(suite.folder))
    assert _nothing_final(suite)
    done = suite.run("snakemake", "diffusion", check=False)
    assert done.returncode == 1
    assert "--unlock" in done.stdout + done.stderr
    suite.run("snakemake", "--unlock")
    _carries_on(suite)
