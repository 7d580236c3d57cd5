"""One denoiser trained by two processes on the CPU: equal to one, resumable, clear when one dies."""

import json
import signal

import numpy as np
import pytest
import torch
from diffusing import denoiser_spec, write_dataset
from training import WEIGHTS, dying_work, run, stopped_work, written

from clsp.diffusion import loop, state, train
from clsp.runtime import device, team
from clsp.runtime.checkpoint import load_state, load_tensors, tensors_sha256
from clsp.runtime.errors import ClspError, ConfigError, DataError, DivergedError
from clsp.runtime.history import read_history

SPEC = denoiser_spec(
    dropout=0.0, epochs=6, log_every=5, learning_rate=1e-3, label_drop=0.2,
    snapshots={"every": 2, "kept": 1, "images": 4, "steps": 2},
)  # fmt: skip
PROGRESS = ("snapshots", "history.jsonl")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(autouse=True)
def _two_processes(monkeypatch):
    monkeypatch.setenv(device.VARIABLE, "cpu")
    monkeypatch.setenv(device.PROCESSES, "2")


@pytest.fixture(scope="module")
def pair(dataset, tmp_path_factory):
    """The same denoiser by one process and by two."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    outcomes = []
    for count, folder in enumerate(folders, start=1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(device.VARIABLE, "cpu")
            patch.setenv(device.PROCESSES, str(count))
            outcomes.append(run(SPEC, dataset, folder))
    return folders, outcomes


def test_two_processes_train_what_one_does_up_to_rounding(pair):
    """Losses are of the whole batch, so noise, times, flips, labels and gradients agree."""
    folders, (one, two) = pair
    logs = [read_history(folder / "history.jsonl") for folder in folders]
    assert [r["step"] for r in logs[0]] == [r["step"] for r in logs[1]]
    for name in ("loss", "grad_norm"):
        values = [[r[name] for r in log] for log in logs]
        assert values[1] == pytest.approx(values[0], rel=2e-3)
        assert values[1][0] == pytest.approx(values[0][0], rel=1e-5)
    assert two.counters == one.counters
    assert (one.facts["processes"], two.facts["processes"]) == (1, 2)
    ema = [load_tensors(folder / "unet" / WEIGHTS)[0] for folder in folders]
    moved = torch.cat([(ema[0][n] - ema[1][n]).flatten() for n in ema[0]]).norm()
    assert moved < 0.01 * torch.cat([t.flatten() for t in ema[0].values()]).norm()
    assert sorted(written(folders[0])) == sorted(written(folders[1]))


def test_gradients_of_parts_average_to_that_of_the_batch():
    """In float64, where rounding cannot hide a wrong weight."""
    network = torch.nn.Linear(3, 2).double()
    batch = torch.arange(24, dtype=torch.float64).view(8, 3).sin()
    parts = []
    for part in (batch, batch[:4], batch[4:]):
        network.zero_grad()
        network(part).pow(2).mean().backward()
        parts.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    torch.testing.assert_close((parts[1] + parts[2]) / 2, parts[0])


def test_dropout_differs_between_processes_and_process_0_draws_like_a_single_one():
    keys = [loop.dropout_key(SPEC, 5, rank) for rank in range(3)]
    assert len(set(keys)) == 3
    assert keys[0] == loop.dropout_key(SPEC, 5, team.Team().rank)


def test_stopped_they_continue_bit_for_bit_until_one_dies(pair, dataset, tmp_path, monkeypatch):
    """Told to end, they save; another number of them is refused, since it could not be exact.

    A process that dies behind the last step then ends the job, and the state has all that was done.
    """
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(train, "work", stopped_work)
    with pytest.raises(SystemExit) as ended:
        run(SPEC, dataset, out, scratch)
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (out / "unet").exists()
    assert load_state(scratch)["step"] == 4
    monkeypatch.undo()
    monkeypatch.setenv(device.VARIABLE, "cpu")
    monkeypatch.setenv(device.PROCESSES, "1")
    with pytest.raises(ConfigError, match="is of 2 processes, but this job has 1; dropout and"):
        run(SPEC, dataset, out, scratch)
    monkeypatch.setenv(device.PROCESSES, "2")
    monkeypatch.setattr(train, "work", dying_work)
    with pytest.raises(ClspError, match="process 1 of 2 ended by signal SIGKILL, so all were"):
        run(SPEC, dataset, out, scratch)
    assert not (out / "unet").exists() and not (out / "model_index.json").exists()
    kept, whole = load_state(scratch), pair[0][1]
    assert kept["step"] == pair[1][1].counters["steps"]
    for place, name in {"unet": "ema", "raw": "unet"}.items():
        wanted = load_tensors(whole / place / WEIGHTS)[0]
        assert tensors_sha256(kept[name]) == tensors_sha256(wanted)
    files = {f"snapshots/{p.name}": p.read_bytes() for p in (scratch / "snapshots").iterdir()}
    files["history.jsonl"] = (scratch / state.LOG).read_bytes()
    assert files == {k: v for k, v in written(whole).items() if k.split("/")[0] in PROGRESS}


def test_an_error_of_a_process_is_the_error_of_the_job(tmp_path):
    record = {"error": "DivergedError", "message": "step 4 has loss nan"}
    (tmp_path / team.FAILURE.format(rank=1)).write_text(json.dumps(record))
    reason = team._reason(None, 2, tmp_path, "train-denoiser")
    assert type(reason) is DivergedError and str(reason) == record["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_cannot_be_shared_equally_is_refused(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv(device.PROCESSES, "3")
    with pytest.raises(ConfigError, match="batch_size 4 cannot be shared equally by 3 processes"):
        run(SPEC, dataset, tmp_path)


def test_more_processes_than_gpus_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(team, "resolve", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DataError, match="2 GPUs were asked for, but this job has 1"):
        team.launch(train.work, None, 2, tmp_path, "train-denoiser")


def test_every_row_of_a_batch_is_one_process_s(dataset):
    images = np.zeros((9, 8, 8, 3), np.uint8)
    pixels = train.Pixels(images, "tiny", torch.device("cpu"))
    whole = train.Feed(pixels, 9, None, SPEC, team.Team()).rows(3)
    parts = [train.Feed(pixels, 9, None, SPEC, team.Team(r, 2)).rows(3) for r in range(2)]
    assert np.concatenate(parts).tolist() == whole.tolist()
