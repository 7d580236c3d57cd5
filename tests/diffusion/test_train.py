"""Training: its arithmetic, its resume, what it writes and what it refuses."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusing import denoiser_spec, write_dataset
from encoding import as_encoded
from training import WEIGHTS, child, run, written

from clsp.data import prepared, streaming
from clsp.diffusion import feed, loop, schedule
from clsp.models.denoiser import load_denoiser
from clsp.runtime.checkpoint import load_state, load_tensors, tensors_sha256
from clsp.runtime.errors import ConfigError, DivergedError
from clsp.runtime.history import StepLog, read_history
from clsp.runtime.manifest import Artefact, write_manifest
from clsp.runtime.stage import Outcome

CHILD = """
import os, signal, sys
from pathlib import Path
from training import run
from clsp.config.denoisers import DenoiserSpec
from clsp.diffusion import loop
from clsp.runtime.canonical import parse_json
from clsp.runtime.manifest import read_manifest
data, out, scratch, spec, last, number = sys.argv[1:]
advance = loop.Loop.advance
def dying(self):
    if self.training.step == int(last):
        os.kill(os.getpid(), int(number))
    return advance(self)
loop.Loop.advance = dying
loop.SAVE_EVERY = 0 if int(number) == signal.SIGKILL else 1000
run(DenoiserSpec.model_validate(parse_json(spec)), read_manifest(Path(data)), Path(out), Path(scratch))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, Artefact]:
    root = tmp_path_factory.mktemp("trained")
    dataset = write_dataset(root / "data")
    return root / "out", run(denoiser_spec(), dataset, root / "out"), dataset


def test_folder_loads_with_diffusers(trained):
    folder, _, _ = trained
    unet = UNet2DModel.from_pretrained(folder, subfolder="unet")
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    pipeline = DDPMPipeline.from_pretrained(folder)
    ema, _ = load_tensors(folder / "unet" / WEIGHTS)
    assert tensors_sha256(unet.state_dict()) == tensors_sha256(ema)
    assert tensors_sha256(pipeline.unet.state_dict()) == tensors_sha256(ema)
    assert scheduler.config.num_train_timesteps == 100
    assert scheduler.config.beta_end == 0.02


def test_outcome_describes_the_files(trained):
    folder, outcome, _ = trained
    digests = outcome.facts["tensors_sha256"]
    assert digests["ema"] == tensors_sha256(load_tensors(folder / "unet" / WEIGHTS)[0])
    assert digests["raw"] == tensors_sha256(load_tensors(folder / "raw" / WEIGHTS)[0])
    assert digests["ema"] != digests["raw"]
    assert outcome.facts["sampled_weights"] == "ema"
    assert outcome.facts["label_conditioned"] is False
    assert outcome.counters["steps"] == outcome.counters["ema_updates"] == 4
    assert outcome.counters["parameters"] == sum(
        tensor.numel() for tensor in load_tensors(folder / "raw" / WEIGHTS)[0].values()
    )


def test_history_has_every_step(trained):
    folder, outcome, _ = trained
    records = read_history(folder / "history.jsonl")
    assert [r["step"] for r in records] == [0, 1, 2, 3]
    assert [r["epoch"] for r in records] == [0, 0, 1, 1]
    assert [r["lr"] for r in records] == [0.0, 0.005, 0.01, 0.01]
    assert outcome.metrics["denoiser/loss"] == np.mean([r["loss"] for r in records[2:]])
    assert all(r["grad_norm"] > 0 for r in records)


def test_trained_artefact_opens(trained):
    folder, outcome, _ = trained
    predicate = {
        "step": "train-denoiser",
        "externalParameters": {"spec": denoiser_spec().canonical()},
    }
    outputs = {"unet": folder / "unet"}
    artefact = write_manifest(folder / "manifest.json", outputs, [], predicate)
    denoiser = load_denoiser(artefact, torch.device("cpu"))
    assert denoiser.sha256 == outcome.facts["tensors_sha256"]["ema"]
    assert denoiser.size == 8
    assert not denoiser.unet.training


def test_same_seed_same_bytes_whatever_the_global_state(trained, tmp_path):
    folder, _, dataset = trained
    torch.manual_seed(99)
    np.random.seed(99)
    run(denoiser_spec(), dataset, tmp_path)
    assert written(tmp_path) == written(folder)


def test_encoded_images_train_like_their_pixels_up_to_a_limit(trained, tmp_path, monkeypatch):
    folder, _, dataset = trained
    twin = as_encoded(dataset, tmp_path)
    run(denoiser_spec(), twin, tmp_path / "out")
    assert written(tmp_path / "out") == written(folder)
    monkeypatch.setattr(prepared, "MOST_BYTES", 9 * 8 * 8 * 3 - 1)
    with pytest.raises(ConfigError, match=r"datasets\.tiny: its 9 encoded images .* smaller size"):
        run(denoiser_spec(), twin, tmp_path / "refused")


@pytest.mark.parametrize(
    ("number", "code", "saved"), [(signal.SIGKILL, -9, 2), (signal.SIGTERM, 143, 3)]
)
def test_ended_process_resumes_bit_for_bit(trained, tmp_path, number, code, saved):
    """Killed, it goes on from the last state; told to end, it first saves the step it is in."""
    folder, _, dataset = trained
    spec, out, scratch = denoiser_spec(), tmp_path / "out", tmp_path / "scratch"
    told = json.dumps(spec.canonical())
    ended = child(CHILD, dataset.manifest, out, scratch, told, 2, int(number))
    assert ended.returncode == code, ended.stderr
    assert not (out / "unet").exists()
    state = load_state(scratch)
    assert state["step"] == saved and "records" not in state
    assert len(read_history(scratch / "history.jsonl")) == saved
    run(spec, dataset, out, scratch)
    assert written(out) == written(folder)


@pytest.mark.parametrize("last", [1, 3])
def test_interruption_anywhere_changes_nothing(trained, tmp_path, monkeypatch, last):
    """A record that was logged but not saved is logged once."""
    folder, _, dataset = trained
    log = StepLog.log

    def interrupted(self, step, **values):
        log(self, step, **values)
        if step == last:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(StepLog, "log", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(denoiser_spec(), dataset, tmp_path)
    assert len(read_history(tmp_path / "history.jsonl")) == last + 1  # live, for the mirror
    monkeypatch.setattr(StepLog, "log", log)
    run(denoiser_spec(), dataset, tmp_path)
    assert written(tmp_path) == written(folder)


def test_state_of_another_spec_is_not_resumed(trained, tmp_path, monkeypatch):
    _, _, dataset = trained
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    run(denoiser_spec(learning_rate=0.02), dataset, tmp_path / "other", tmp_path / "scratch")
    run(denoiser_spec(), dataset, tmp_path / "after", tmp_path / "scratch")
    run(denoiser_spec(), dataset, tmp_path / "fresh")
    assert written(tmp_path / "after") == written(tmp_path / "fresh")


@pytest.mark.parametrize(
    "changed",
    [
        {"channels": [8, 16]}, {"attention": [True, True]}, {"layers_per_block": 2},
        {"norm_groups": 2}, {"dropout": 0.3}, {"train_timesteps": 50}, {"beta_start": 0.001},
        {"beta_end": 0.05}, {"epochs": 3}, {"batch_size": 3}, {"learning_rate": 0.02},
        {"warmup_steps": 3}, {"gradient_clip": 1e-6}, {"ema_decay": 0.5}, {"flip": 0.0},
        {"seed": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_every_field_changes_the_weights(trained, tmp_path, changed):
    _, before, dataset = trained
    after = run(denoiser_spec(**changed), dataset, tmp_path)
    assert after.facts["tensors_sha256"]["ema"] != before.facts["tensors_sha256"]["ema"]


def test_ema_is_the_closed_form(trained, tmp_path, monkeypatch):
    _, _, dataset = trained
    seen: list[dict[str, torch.Tensor]] = []
    advance = loop.Loop.advance

    def spy(self):
        if not seen:
            seen.append({k: v.clone() for k, v in self.training.unet.state_dict().items()})
        values = advance(self)
        seen.append({k: v.clone() for k, v in self.training.unet.state_dict().items()})
        return values

    monkeypatch.setattr(loop.Loop, "advance", spy)
    run(denoiser_spec(), dataset, tmp_path)
    ema, _ = load_tensors(tmp_path / "unet" / WEIGHTS)
    for name, tensor in ema.items():
        expected = seen[0][name].double()
        for state in seen[1:]:
            expected = 0.9 * expected + 0.1 * state[name].double()
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-7)


def test_batch_is_keyed_by_row_and_epoch():
    images = torch.randint(0, 256, (6, 8, 8, 3), dtype=torch.uint8)
    spec = denoiser_spec()
    together = feed.draw_batch(images, torch.arange(6), 3, spec)
    alone = feed.draw_batch(images[4:5], torch.tensor([4]), 3, spec)
    later = feed.draw_batch(images[4:5], torch.tensor([4]), 4, spec)
    for whole, single in zip(together, alone, strict=True):
        assert torch.equal(whole[4:5], single)
    assert not torch.equal(alone[1], later[1])


def test_flip_mirrors_columns():
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    rows = torch.arange(4)
    plain = feed.draw_batch(images, rows, 0, denoiser_spec(flip=0.0))[0]
    mirrored = feed.draw_batch(images, rows, 0, denoiser_spec(flip=1.0))[0]
    assert torch.equal(mirrored, plain.flip(3))
    assert not torch.equal(mirrored, plain)


def test_forward_process_has_the_published_alphas():
    """methods.md 2.1."""
    alphas = schedule.build_schedule(denoiser_spec(train_timesteps=1000)).alphas_cumprod.tolist()
    for step, value in {0: 0.9999, 9: 0.99810520, 499: 0.07858724, 999: 4.035830e-5}.items():
        assert alphas[step] == pytest.approx(value, rel=1e-4)


def test_batch_larger_than_the_data_is_refused_before_training(trained, tmp_path):
    _, _, dataset = trained
    with pytest.raises(ConfigError, match="batch_size 10 is larger than the 9 training images"):
        run(denoiser_spec(batch_size=10), dataset, tmp_path)
    assert not (tmp_path / "history.jsonl").exists()


def test_size_that_does_not_fit_is_refused(tmp_path):
    dataset = write_dataset(tmp_path / "data", size=7)
    with pytest.raises(ConfigError, match=r"2 levels .* size 7"):
        run(denoiser_spec(), dataset, tmp_path / "out")


def test_loss_that_is_not_finite_stops_before_the_update(trained, tmp_path, monkeypatch):
    _, _, dataset = trained
    noised = schedule.build_schedule(denoiser_spec())
    noised.alphas_cumprod[:] = torch.nan
    monkeypatch.setattr(loop, "build_schedule", lambda spec: noised)
    with pytest.raises(DivergedError, match=r"step 0 has loss nan.*before the update") as caught:
        run(denoiser_spec(), dataset, tmp_path)
    assert caught.value.exit_code == 1
    assert (tmp_path / "history.jsonl").read_text() == ""
    assert not (tmp_path / "unet").exists()


def test_images_too_large_for_memory_are_read_from_their_file(trained, tmp_path, monkeypatch):
    folder, _, dataset = trained
    monkeypatch.setattr(streaming, "RESIDENT_BYTES", 9 * 8 * 8 * 3 - 1)
    run(denoiser_spec(), dataset, tmp_path)
    assert written(tmp_path) == written(folder)
