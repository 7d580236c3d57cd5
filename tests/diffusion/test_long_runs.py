"""Windows of the step log, snapshots, precision, compilation, and their resume."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusing import denoiser_spec, write_dataset
from PIL import Image
from pydantic import ValidationError
from training import WEIGHTS, run, written

from clsp.audit.checks import a43_denoisers
from clsp.data.prepared import open_images
from clsp.diffusion import loop, snapshots, state, train
from clsp.models.denoiser import build_denoiser
from clsp.runtime.checkpoint import load_state, load_tensors
from clsp.runtime.errors import DataError, DivergedError
from clsp.runtime.history import StepLog, read_history
from clsp.runtime.rng import torch_stream

SNAPSHOTS = {"every": 1, "kept": 2, "images": 5, "steps": 2}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def plain(dataset, tmp_path_factory):
    """Five epochs of two steps; every step is logged."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, run(denoiser_spec(epochs=5), dataset, folder)


def interrupted(spec, dataset, folder, monkeypatch, step):
    """Train up to the state after a step, stop there, and go on."""
    save = state.Training.save

    def stopping(self, *given):
        save(self, *given)
        if self.step == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY", 0)
        patch.setattr(state.Training, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(spec, dataset, folder)
    return run(spec, dataset, folder)


def test_windows_sum_up_the_steps(plain, dataset, tmp_path):
    folder, before = plain
    outcome = run(denoiser_spec(epochs=5, log_every=4), dataset, tmp_path)
    steps, windows = (read_history(f / "history.jsonl") for f in (folder, tmp_path))
    assert [r["step"] for r in windows] == [3, 7, 9]  # the last step always
    assert a43_denoisers.logged_steps(denoiser_spec(log_every=4), 10) == [3, 7, 9]
    assert a43_denoisers.logged_steps(denoiser_spec(), 10) == [r["step"] for r in steps]
    assert [r["epoch"] for r in windows] == [1, 3, 4]
    for record, (first, last) in zip(windows, [(0, 4), (4, 8), (8, 10)], strict=True):
        part = steps[first:last]
        assert record["loss"] == pytest.approx(np.mean([r["loss"] for r in part]), rel=1e-12)
        assert record["grad_norm"] == max(r["grad_norm"] for r in part)
        assert record["lr"] == part[-1]["lr"]
    assert outcome.facts["tensors_sha256"] == before.facts["tensors_sha256"]
    assert outcome.metrics["denoiser/loss"] == pytest.approx(before.metrics["denoiser/loss"])


def test_the_audit_digests_weights_as_the_stage_does(plain):
    folder, outcome = plain
    for name, place in a43_denoisers.FOLDERS.items():
        digest = a43_denoisers.tensors_digest(folder / place / WEIGHTS)
        assert digest == outcome.facts["tensors_sha256"][name]


def test_the_audit_knows_when_averaged_and_raw_weights_may_be_equal(dataset, tmp_path):
    spec = denoiser_spec(ema_decay=0.0)
    facts, artefact = run(spec, dataset, tmp_path).facts, SimpleNamespace(folder=tmp_path)
    assert facts["tensors_sha256"]["ema"] == facts["tensors_sha256"]["raw"]
    assert a43_denoisers._weights(spec, 4, facts, artefact) is None
    assert a43_denoisers._weights(denoiser_spec(), 4, facts, artefact)[1] == "the same tensors"


def test_a_window_across_epochs_counts_with_its_share():
    records = [{"step": 2, "loss": 1.0}, {"step": 5, "loss": 2.0}, {"step": 7, "loss": 5.0}]
    assert train.last_epoch_loss(records, 4) == (2 * 2.0 + 2 * 5.0) / 4
    assert train.last_epoch_loss(records, 0) == (3 * 1.0 + 3 * 2.0 + 2 * 5.0) / 8


@pytest.mark.parametrize("step", [2, 3, 4])  # inside a window, before its last step, behind it
def test_an_interrupted_window_is_continued(dataset, tmp_path, monkeypatch, step):
    spec = denoiser_spec(log_every=3, epochs=3)
    run(spec, dataset, tmp_path / "whole")
    interrupted(spec, dataset, tmp_path / "cut", monkeypatch, step)
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def _poison(monkeypatch, step):
    """Let the loss be NaN from a step on."""
    real = loop.mse_loss

    def poisoned(predicted, noise):
        count[0] += 1
        return real(predicted, noise) * (math.nan if count[0] > step else 1)

    count = [0]
    monkeypatch.setattr(loop, "mse_loss", poisoned)


def test_a_window_that_is_not_finite_ends_the_job(dataset, tmp_path, monkeypatch):
    _poison(monkeypatch, 5)
    spec = denoiser_spec(log_every=4, epochs=5)
    with pytest.raises(
        DivergedError, match=r"steps 4 to 7 have mean loss nan .* no state had been"
    ):
        run(spec, dataset, tmp_path)
    assert [r["step"] for r in read_history(tmp_path / "history.jsonl")] == [3]
    assert not (tmp_path / "unet").exists()


def test_no_state_holds_what_is_not_finite(dataset, tmp_path, monkeypatch):
    _poison(monkeypatch, 5)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    told = "between steps 4 and 5 loss, .* last good state, after step 5, is kept"
    with pytest.raises(DivergedError, match=told):
        run(denoiser_spec(log_every=4, epochs=5), dataset, tmp_path)
    kept = load_state(tmp_path / "scratch")
    assert kept["step"] == 5
    assert all(torch.isfinite(t).all() for t in [*kept["unet"].values(), *kept["ema"].values()])


def test_a_spec_tried_in_between_leaves_nothing_to_mix(dataset, tmp_path, monkeypatch):
    """It took over the log of the first one, whose state must then not be continued."""
    first, other = denoiser_spec(epochs=3), denoiser_spec(epochs=3, seed=1)
    whole = run(first, dataset, tmp_path / "whole")

    class Killed(BaseException):
        """Stands for a SIGKILL: nothing is saved."""

    def die(self, *_):
        raise Killed

    tried = tmp_path / "tried"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY", 0)
        patch.setattr(loop.Loop, "advance", _dying_after(loop.Loop.advance, 2, Killed))
        with pytest.raises(Killed):
            run(first, dataset, tried)
    assert load_state(tried / "scratch") is not None
    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "advance", die)
        with pytest.raises(Killed):
            run(other, dataset, tried)
    assert load_state(tried / "scratch") is None
    again = run(first, dataset, tried)
    assert again.facts["tensors_sha256"] == whole.facts["tensors_sha256"]
    logs = [read_history(folder / "history.jsonl") for folder in (tmp_path / "whole", tried)]
    assert logs[0] == logs[1]


def _dying_after(advance, steps, error):
    def counted(self):
        if self.training.step == steps:
            raise error
        return advance(self)

    return counted


def test_a_log_shorter_than_its_state_is_refused(tmp_path):
    log = StepLog(tmp_path / "h.jsonl")
    log.log(0, loss=1.0)
    length = log.sync()
    log.log(1, loss=2.0)
    assert StepLog(log.path, length).last == 0
    assert len(read_history(log.path)) == 1
    with pytest.raises(ValueError, match="step 0 does not follow 0"):
        StepLog(log.path, length).log(0, loss=1.0)
    with pytest.raises(DataError, match=f"has {length} bytes, but the resume state counts on"):
        StepLog(log.path, length + 1)


def test_without_snapshots_one_small_grid_and_the_curve_are_kept(plain):
    folder, _ = plain
    found = sorted(path.name for path in (folder / "snapshots").iterdir())
    assert found == ["epoch-000005.png", "loss.png"]
    grid = np.array(Image.open(folder / "snapshots/epoch-000005.png"))
    assert grid.shape == (4 * 8, 4 * 8, 3) and grid.std() > 10
    assert snapshots.final_grid(denoiser_spec(train_timesteps=1000)).steps == 20
    assert snapshots.final_grid(denoiser_spec(train_timesteps=97)).steps == 1


def test_snapshots_keep_the_newest_weights_and_every_grid(plain, dataset, tmp_path, caplog):
    with caplog.at_level("INFO"):
        outcome = run(denoiser_spec(epochs=5, snapshots=SNAPSHOTS), dataset, tmp_path)
    assert f"snapshots appear in {tmp_path / 'scratch/snapshots'}" in caplog.text
    found = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    grids = [f"epoch-00000{epoch}.png" for epoch in range(1, 6)]
    weights = [f"epoch-00000{epoch}.safetensors" for epoch in (3, 4)]  # the last are the artefact's
    assert found == sorted([*grids, *weights, "loss.png"])
    early = load_tensors(tmp_path / "snapshots" / weights[0])[0]
    final = load_tensors(tmp_path / "unet" / WEIGHTS)[0]
    assert early.keys() == final.keys()
    assert any(not torch.equal(early[name], final[name]) for name in early)
    assert outcome.facts["tensors_sha256"] == plain[1].facts["tensors_sha256"]


@pytest.mark.parametrize("step", [2, 7])  # just behind a snapshot, and in the middle of an epoch
def test_snapshots_of_an_interrupted_job_are_those_of_a_whole_one(
    dataset, tmp_path, monkeypatch, step
):
    spec = denoiser_spec(epochs=5, snapshots=SNAPSHOTS, log_every=3)
    run(spec, dataset, tmp_path / "whole")
    interrupted(spec, dataset, tmp_path / "cut", monkeypatch, step)
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def test_snapshots_of_another_spec_do_not_stay(dataset, tmp_path):
    spec = denoiser_spec(epochs=5, snapshots=SNAPSHOTS)
    run(spec, dataset, tmp_path / "long", tmp_path / "scratch")
    run(denoiser_spec(), dataset, tmp_path / "short", tmp_path / "scratch")
    found = sorted(path.name for path in (tmp_path / "short/snapshots").iterdir())
    assert found == ["epoch-000002.png", "loss.png"]


def test_a_grid_is_the_same_every_time_and_shows_classes_in_turn():
    spec = denoiser_spec(label_drop=0.1)
    unet = build_denoiser(spec, 8, 3).eval()
    for parameter in unet.parameters():
        parameter.data.normal_(0, 0.1, generator=torch_stream("weights"))
    grid = snapshots.draw_grid(unet, spec, 4, 2, 3)
    torch.manual_seed(5)
    assert np.array_equal(grid, snapshots.draw_grid(unet, spec, 4, 2, 3))
    other = snapshots.draw_grid(unet, spec, 4, 2, 2)  # images 0, 1 keep their class; 2, 3 do not
    assert [np.array_equal(a, b) for a, b in zip(grid, other, strict=True)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_images_are_tiled_row_by_row():
    images = np.arange(1, 6, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, axis=3)
    assert snapshots.tile(images)[:, :, 0].tolist() == [[1, 2, 3], [4, 5, 0]]


def test_grid_steps_must_divide_the_training_times():
    with pytest.raises(ValidationError, match=r"snapshots\.steps must divide .* 100, found 3"):
        denoiser_spec(snapshots={**SNAPSHOTS, "steps": 3})


def test_bf16_trains_full_precision_weights(dataset, plain, tmp_path):
    spec = denoiser_spec(epochs=5, precision="bf16", snapshots=SNAPSHOTS)
    run(spec, dataset, tmp_path)
    half, full = (load_tensors(f / "unet" / WEIGHTS)[0] for f in (tmp_path, plain[0]))
    assert {t.dtype for t in half.values()} == {torch.float32}
    records = [read_history(f / "history.jsonl") for f in (tmp_path, plain[0])]
    losses = np.array([[r["loss"] for r in found] for found in records])
    assert 0 < np.abs(losses[0] - losses[1]).max() < 0.05
    assert any(not torch.equal(half[name], full[name]) for name in half)


def test_bf16_resumes_bit_for_bit(dataset, tmp_path, monkeypatch):
    spec = denoiser_spec(precision="bf16", log_every=3)
    run(spec, dataset, tmp_path / "whole")
    interrupted(spec, dataset, tmp_path / "cut", monkeypatch, 2)
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def _losses(folder):
    return [record["loss"] for record in read_history(folder / "history.jsonl")]


def test_the_layout_in_memory_changes_rounding_alone(dataset, tmp_path, monkeypatch):
    """Losses and not weights: Adam follows the sign of gradients that are rounding alone.

    Dropout, if there were any, would draw in the order of memory.
    """
    for layout in (torch.contiguous_format, torch.channels_last):
        monkeypatch.setattr(train, "memory_layout", lambda *_, layout=layout: layout)
        run(denoiser_spec(dropout=0.0), dataset, tmp_path / str(layout))
        weights = load_tensors(tmp_path / str(layout) / "raw" / WEIGHTS)[0].values()
        assert all(tensor.is_contiguous() for tensor in weights)
    lasts, firsts = (_losses(folder) for folder in tmp_path.iterdir())
    assert lasts == pytest.approx(firsts, rel=1e-4) and len(lasts) == 4


def _compiled(dataset, folder):
    """Train without and with `compile`; dropout draws otherwise when compiled."""
    for name, more in {"eager": {}, "compiled": {"compile": True}}.items():
        spec = denoiser_spec(dropout=0.0, channels=[8], attention=[False], **more)
        run(spec, dataset, folder / name)
    assert _losses(folder / "compiled") == pytest.approx(_losses(folder / "eager"), rel=1e-4)
    files = [load_tensors(folder / name / "raw" / WEIGHTS)[0] for name in ("eager", "compiled")]
    assert files[0].keys() == files[1].keys()


def test_a_compiled_network_is_the_one_that_is_trained_and_saved(dataset, tmp_path, monkeypatch):
    """With the compiler's front end alone, which takes a second instead of a minute."""
    called = []

    def traced(module, dynamic):
        called.append(dynamic)
        return real(module, dynamic=dynamic, backend="eager")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", traced)
    _compiled(dataset, tmp_path)
    assert called == [False]


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(dataset, tmp_path):
    _compiled(dataset, tmp_path)


def test_attention_on_a_gpu_is_torch_s_plain_one():
    """The fused kernels' gradients differ from time to time, and a resume would not be exact."""
    cuda = torch.backends.cuda
    found = cuda.flash_sdp_enabled, cuda.mem_efficient_sdp_enabled, cuda.cudnn_sdp_enabled
    before = [each() for each in found]
    with loop.repeatable_attention(torch.device("cuda")):
        assert not any(each() for each in found) and cuda.math_sdp_enabled()
    with loop.repeatable_attention(torch.device("cpu")):
        assert [each() for each in found] == before


def test_rows_for_training_belong_to_the_state(dataset):
    """A state is of the rows it saw: another split of the same pixels is other data."""
    spec, (images, card) = denoiser_spec(), open_images(dataset)
    whole = train.open_data(spec, dataset)
    assert whole.depends == [card["images_sha256"], [0, 9]] and len(images) == 12
    classes = train.open_data(denoiser_spec(label_drop=0.1), dataset)
    assert classes.depends == [*whole.depends, card["labels_sha256"]]


def test_states_take_a_small_share_of_the_time(monkeypatch, dataset, tmp_path):
    """However large a state is, the next one waits until saving is 5 % of the time."""
    seen = []
    keep = loop.Loop.keep

    def slow(self):
        keep(self)
        seen.append(self.pause)

    clock = iter(range(0, 10_000, 7))  # seven seconds pass between any two looks
    monkeypatch.setattr(loop.Loop, "keep", slow)
    monkeypatch.setattr(loop, "SAVE_EVERY", 1)
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    run(denoiser_spec(epochs=5), dataset, tmp_path)
    assert seen[0] == pytest.approx(7 / 0.05) and len(seen) == 1
