"""The stage as a whole: outputs, log, refusals, determinism."""

import json

import numpy as np
import pytest
import torch
from pairing import write_pairs
from pretraining import (
    NOTHING,
    RECIPE,
    make_prepared,
    make_spec,
    write_bank,
    write_dataset,
    write_encoded,
)

from clsp.data.prepared import open_prepared
from clsp.job import Call
from clsp.job import run as run_job
from clsp.models.encoder import FILE, load_encoder
from clsp.pretrain import loop
from clsp.pretrain.anchors import epoch_order
from clsp.pretrain.feed import load_batch
from clsp.pretrain.loop import objective
from clsp.pretrain.methods.moco import Method
from clsp.pretrain.optim import learning_rate
from clsp.pretrain.run import pretrain_encoder
from clsp.pretrain.setup import set_up
from clsp.runtime.checkpoint import load_state, load_tensors, tensors_sha256
from clsp.runtime.errors import ConfigError, DataError, DivergedError
from clsp.runtime.history import read_history
from clsp.runtime.manifest import read_manifest, write_manifest

CPU = torch.device("cpu")
WATCHED = {"embedding_std", "effective_rank", "teacher_distance", "gradient_norm"}


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setenv("CLSP_DEVICE", "cpu")
    monkeypatch.setenv("CLSP_PROGRESS", "plain")


VIEWS = RECIPE["views"]


def outputs(folder):
    """Paths of the stage's outputs below a folder."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return {
        "encoder": folder / FILE,
        "start": folder / "checkpoints/start.safetensors",
        "middle": folder / "checkpoints/middle.safetensors",
        "final": folder / "checkpoints/final.safetensors",
        "history": folder / "history.jsonl",
        "scratch": folder / "scratch",
    }


def test_a_run_writes_everything_it_promises(tmp_path):
    dataset = write_dataset(tmp_path / "toy")
    bank = write_bank(tmp_path / "toy.mix", open_prepared(dataset))
    spec, paths = make_spec("moco", "bank"), outputs(tmp_path / "run")
    outcome = pretrain_encoder(spec, dataset, [bank], [], **paths)
    assert outcome.counters == {"optimizer_steps": 6, "ema_updates": 6, "samples": 48}
    facts = outcome.facts
    states = {n: load_tensors(paths[n])[0] for n in ("start", "middle", "final")}
    assert facts["init_sha256"] == tensors_sha256(states["start"])
    assert facts["final_sha256"] == tensors_sha256(states["final"])
    assert facts["label_free"] is True and facts["recipe_family"] == "tests"
    assert facts["uses_labels"] == {"method": False, "positives": False, "artefact": False}
    assert facts["aligned"] == Method.ALIGNED
    assert facts["health"].keys() == WATCHED
    assert facts["forward"] == "separate" and facts["steps"] == 6
    assert int(states["middle"]["teacher.updates"]) == 2  # half of 3 epochs, 2 steps each
    assert int(states["final"]["queue.pointer"]) == 6 * 8 % 24
    assert load_tensors(paths["final"])[1]["step"] == "6"
    weight = states["final"]["encoder.conv1.weight"]
    files = {FILE: paths["encoder"]}
    predicate = {"step": "x", "externalParameters": {"spec": {}}}
    artefact = write_manifest(tmp_path / "run/manifest.json", files, [], predicate)
    encoder, statistics = load_encoder(artefact, CPU)
    assert torch.equal(encoder.conv1.weight, weight)
    assert statistics.mean == tuple(open_prepared(dataset).mean)


@pytest.mark.parametrize(("method", "positives"), [("simclr", "none"), ("moco", "augmentation")])
def test_the_log_adds_up(tmp_path, method, positives):
    dataset, spec = write_dataset(tmp_path / "toy"), make_spec(method, positives)
    paths = outputs(tmp_path / "run")
    pretrain_encoder(spec, dataset, [], [], **paths)
    records = read_history(paths["history"])
    assert [r["step"] for r in records] == list(range(6))
    assert [r["epoch"] for r in records] == [0, 0, 1, 1, 2, 2]
    for record in records:
        aligned = spec.alignment_weight * record.get("alignment", 0)
        assert record["loss"] == pytest.approx(record["info_nce"] + aligned, abs=1e-9)
        assert record["lr"] == learning_rate(spec.recipe, record["step"], 2)
        assert record["gradient_norm"] > 0
        ends = record["step"] % 2 == 1
        assert ("effective_rank" in record) == ends
        assert ("teacher_distance" in record) == (ends and method == "moco")
        assert ("alignment" in record) == (positives != "none")
        assert ("momentum" in record) == (method == "moco")
        assert record["embedding_std"] > 0
    if method == "moco":
        assert [r["momentum"] for r in records[:2]] == [
            0.9,
            0.9,
        ]  # tau(0) twice: the authors' order
        assert records[2]["momentum"] > 0.9


def test_the_same_run_twice_is_equal_and_another_seed_is_not(tmp_path):
    dataset = write_dataset(tmp_path / "toy")
    facts = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(seed + 7)
        paths = outputs(tmp_path / name)
        facts.append(pretrain_encoder(make_spec(seed=seed), dataset, [], [], **paths).facts)
    assert facts[0] == facts[1]
    for key in ("init_sha256", "final_sha256", "first_batch_sha256"):
        assert facts[0][key] != facts[2][key]


def test_a_run_on_encoded_images_is_the_same_every_time(tmp_path):
    dataset = write_encoded(tmp_path / "toy")
    facts = [
        pretrain_encoder(make_spec("moco"), dataset, [], [], **outputs(tmp_path / name)).facts
        for name in "ab"
    ]
    assert facts[0] == facts[1] and facts[0]["steps"] == 6


def test_unlabelled_images_are_trained_on_and_left_out_of_the_log(tmp_path):
    labels = np.full(24, -1)
    labels[[0, 1, 20, 21]] = 0
    dataset = write_dataset(tmp_path / "toy", labels=labels)
    paths = outputs(tmp_path / "run")
    pretrain_encoder(make_spec("nnclr"), dataset, [], [], **paths)
    shares = [r["neighbour_label_share"] for r in read_history(paths["history"])]
    assert all(0 <= share <= 1 for share in shares)


def test_normalisation_of_the_spec_wins(tmp_path):
    statistics = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    setup = set_up(make_spec(normalisation=statistics), make_prepared(), NOTHING, CPU)
    assert setup.statistics.mean == (0.5, 0.4, 0.3)


def test_every_epoch_shows_every_image_once_in_a_new_order():
    first, second = epoch_order(50, 0, 0), epoch_order(50, 0, 1)
    assert sorted(first) == list(range(50)) and not np.array_equal(first, second)
    assert np.array_equal(first, epoch_order(50, 0, 0))
    assert not np.array_equal(first, epoch_order(50, 1, 0))


@pytest.mark.parametrize("change", [
    {"recipe": {"learning_rate": 0.05}}, {"recipe": {"momentum": 0.5}},
    {"recipe": {"weight_decay": 0.1}}, {"recipe": {"warmup_epochs": 0}},
    {"recipe": {"warmup_start": 0.05}}, {"recipe": {"epochs": 4}}, {"recipe": {"batch_size": 4}},
    {"recipe": {"schedule": "step"}}, {"recipe": {"learning_rate_scaling": "batch_256"}},
    {"recipe": {"weight_decay_on": "weights"}},
    {"recipe": {"optimizer": "lars", "lars": {"trust": 0.02, "clip": True}}},
    {"recipe": {"views": {**VIEWS, "interpolation": "bicubic"}}},
    {"recipe": {"views": {**VIEWS, "blur": {"probability": 1.0, "sigma": [0.5, 1.0]}}}},
    {"recipe": {"second_view": {**VIEWS, "grayscale": 1.0}}},
    {"alignment_weight": 0.9}, {"positives": "none"}, {"method": "moco"}, {"seed": 3},
    {"options": {"temperature": 0.5}}, {"options": {"hidden": 8}},
    {"options": {"projection": 4}}, {"options": {"forward": "four_gpu"}},
    {"options": {"forward": "separate"}},
])  # fmt: skip
def test_every_field_of_the_spec_changes_the_result(tmp_path, change):
    dataset = write_dataset(tmp_path / "toy")
    plain = pretrain_encoder(make_spec(), dataset, [], [], **outputs(tmp_path / "a"))
    changed = pretrain_encoder(make_spec(**change), dataset, [], [], **outputs(tmp_path / "b"))
    assert plain.facts["final_sha256"] != changed.facts["final_sha256"]


def test_batch_larger_than_the_data_is_refused():
    spec = make_spec(recipe={"batch_size": 21})
    with pytest.raises(
        ConfigError, match="batch_size 21 exceeds the 20 training images of dataset toy"
    ):
        set_up(spec, make_prepared(), NOTHING, CPU)


def test_queue_that_is_no_multiple_of_the_batch_is_refused():
    spec = make_spec("moco", options={"queue": 20})
    with pytest.raises(ConfigError, match="queue 20 is not a multiple of batch_size 8"):
        set_up(spec, make_prepared(), NOTHING, CPU)


def test_unknown_option_is_refused_with_the_nearest_name():
    spec = make_spec(options={"temprature": 0.1})
    with pytest.raises(ConfigError, match=r'unknown key "temprature".*"temperature"'):
        set_up(spec, make_prepared(), NOTHING, CPU)


def test_bank_of_another_dataset_is_refused(tmp_path):
    bank = write_bank(tmp_path / "other.mix", make_prepared(seed=9))
    with pytest.raises(DataError, match=r"other.mix belongs to another dataset"):
        set_up(make_spec(positives="bank"), make_prepared(), {**NOTHING, "bank": [bank]}, CPU)


def test_two_banks_are_refused(tmp_path):
    bank = write_bank(tmp_path / "toy.mix", make_prepared())
    with pytest.raises(ConfigError, match="--bank: positives bank take 1, found 2"):
        set_up(make_spec(positives="bank"), make_prepared(), {**NOTHING, "bank": [bank, bank]}, CPU)


def spoil_step(monkeypatch, number, spoilt):
    """Let `spoilt` change the parts of the loss of one step."""
    seen = []

    def objective_of(step, weight):
        parts = objective(step, weight)
        seen.append(1)
        return spoilt(parts) if len(seen) == number + 1 else parts

    monkeypatch.setattr(loop, "objective", objective_of)


def nan_loss(parts):
    """A loss that is not finite."""
    return {**parts, "loss": parts["loss"] * torch.nan}


def nan_gradient(parts):
    """A finite loss whose gradient is not."""
    zero = parts["loss"] - parts["loss"]
    return {**parts, "loss": parts["loss"].detach() + zero.abs().sqrt()}


@pytest.mark.parametrize(("spoilt", "told"), [(nan_loss, "loss nan"), (nan_gradient, "norm nan")])
def test_a_run_that_is_not_finite_stops_before_the_update(tmp_path, monkeypatch, spoilt, told):
    dataset, paths = write_dataset(tmp_path / "toy"), outputs(tmp_path / "run")
    spoil_step(monkeypatch, 3, spoilt)
    real = torch.optim.SGD.step
    updates = []
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: (updates.append(1), real(self)))
    with pytest.raises(DivergedError, match=rf"step 3 \(epoch 1\): not finite.*{told}") as caught:
        pretrain_encoder(make_spec(), dataset, [], [], **paths)
    assert len(updates) == 3
    assert not paths["final"].exists()
    assert "the last good state, after step 2, is kept in" in str(caught.value)
    state = load_state(paths["scratch"])
    assert state["step"] == 2
    assert all(torch.isfinite(t).all() for t in state["method"].values())


def test_a_run_that_diverges_at_once_says_that_nothing_was_kept(tmp_path, monkeypatch):
    dataset, paths = write_dataset(tmp_path / "toy"), outputs(tmp_path / "run")
    spoil_step(monkeypatch, 0, nan_loss)
    with pytest.raises(DivergedError, match="no state had been saved yet"):
        pretrain_encoder(make_spec(), dataset, [], [], **paths)


def test_a_failed_run_is_recorded_and_a_later_success_clears_the_record(tmp_path, monkeypatch):
    dataset, paths = write_dataset(tmp_path / "toy"), outputs(tmp_path / "run")
    spec, manifest = make_spec(), tmp_path / "run/manifest.json"
    arguments = {
        "spec": json.dumps(spec.canonical()), "dataset": [dataset.manifest], "bank": [],
        "pairs": [], **paths,
    }  # fmt: skip
    call = Call("pretrain-encoder", pretrain_encoder, arguments, manifest, "abc", 1)
    with monkeypatch.context() as patch, pytest.raises(DivergedError):
        spoil_step(patch, 3, nan_loss)
        run_job(call)
    record = json.loads((tmp_path / "run/failed.json").read_text())
    assert record["status"] == "failed" and record["step"] == "pretrain-encoder"
    assert record["spec"] == spec.canonical() and record["code"] == "abc"
    assert "step 3 (epoch 1): not finite" in record["error"]
    assert not manifest.exists() and not paths["encoder"].exists()
    run_job(call)  # goes on from the last good state
    assert manifest.exists() and not (tmp_path / "run/failed.json").exists()
    straight = outputs(tmp_path / "straight")
    facts = pretrain_encoder(spec, dataset, [], [], **straight).facts
    assert read_manifest(manifest).predicate["facts"] == facts


def test_pairs_of_a_label_trained_encoder_make_the_run_use_labels(tmp_path):
    dataset = write_dataset(tmp_path / "toy")
    for conditioned in (False, True):
        folder = tmp_path / f"pairs-{conditioned}"
        pairs = write_pairs(folder, open_prepared(dataset), [(0, 3)], conditioned=conditioned)
        spec = make_spec(positives="semantic_pairs", pairs="toy.pairs")
        paths = outputs(tmp_path / f"run-{conditioned}")
        facts = pretrain_encoder(spec, dataset, [], [pairs], **paths).facts
        assert facts["uses_labels"]["artefact"] is conditioned
        assert facts["label_free"] is not conditioned


def test_labels_reach_only_a_method_that_uses_them():
    plain = set_up(make_spec("simclr"), make_prepared(), NOTHING, CPU)
    assert plain.anchors.labels is None
    assert load_batch(plain, torch.arange(8), 0).labels is None
    setup = set_up(make_spec("supcon"), make_prepared(), NOTHING, CPU)
    labels = make_prepared().labels[:8]
    assert load_batch(setup, torch.arange(8), 0).labels.tolist() == labels.tolist()


def test_a_second_view_has_its_own_pipeline_and_the_first_stays_as_it_is():
    weak = {**VIEWS, "grayscale": 1.0, "jitter": {**VIEWS["jitter"], "probability": 0.0}}
    one = set_up(make_spec(), make_prepared(), NOTHING, CPU)
    two = set_up(make_spec(recipe={"second_view": weak}), make_prepared(), NOTHING, CPU)
    plain, other = (load_batch(s, torch.arange(8), 0) for s in (one, two))
    assert torch.allclose(plain.views[0], other.views[0], atol=1e-6)
    assert torch.allclose(plain.positive, other.positive, atol=1e-6)
    statistics = two.statistics
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (statistics.mean, statistics.std))
    pixels = other.views[1] * std + mean
    grey = (pixels[:, 0] - pixels[:, 1]).abs().amax(dim=(1, 2)) < 1e-5
    assert grey.all()
    colour = plain.views[1] * std + mean
    assert (colour[:, 0] - colour[:, 1]).abs().amax() > 0.05


def test_manifest_of_the_inputs_is_only_read(tmp_path):
    dataset = write_dataset(tmp_path / "toy")
    before = json.dumps(read_manifest(dataset.manifest).statement)
    pretrain_encoder(make_spec(), dataset, [], [], **outputs(tmp_path / "run"))
    assert json.dumps(read_manifest(dataset.manifest).statement) == before
    dataset.verify()
