"""The stage as a whole: outputs, log, refusals, determinism."""

import json

import numpy as np
import pytest
import torch
from pretraining import make_prepared, make_spec, write_bank, write_dataset

from clsp.data.prepared import open_prepared
from clsp.models.encoder import FILE, load_encoder
from clsp.pretrain import run as loop
from clsp.pretrain.anchors import epoch_order
from clsp.pretrain.optim import learning_rate
from clsp.pretrain.run import objective, pretrain_encoder, set_up
from clsp.runtime.checkpoint import load_tensors, tensors_sha256
from clsp.runtime.errors import ClspError, ConfigError, DataError
from clsp.runtime.history import read_history
from clsp.runtime.manifest import read_manifest, write_manifest

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setenv("CLSP_DEVICE", "cpu")
    monkeypatch.setenv("CLSP_PROGRESS", "plain")


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
    outcome = pretrain_encoder(spec, dataset, [bank], **paths)
    assert outcome.counters == {"optimizer_steps": 6, "ema_updates": 6, "samples": 48}
    facts = outcome.facts
    states = {n: load_tensors(paths[n])[0] for n in ("start", "middle", "final")}
    assert facts["init_sha256"] == tensors_sha256(states["start"])
    assert facts["final_sha256"] == tensors_sha256(states["final"])
    assert facts["label_free"] is True and facts["forward"] == "separate" and facts["steps"] == 6
    assert int(states["middle"]["updates"]) == 2  # half of 3 epochs, 2 steps each
    assert int(states["final"]["pointer"]) == 6 * 8 % 24
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
    pretrain_encoder(spec, dataset, [], **paths)
    records = read_history(paths["history"])
    assert [r["step"] for r in records] == list(range(6))
    assert [r["epoch"] for r in records] == [0, 0, 1, 1, 2, 2]
    for record in records:
        aligned = spec.alignment_weight * record.get("alignment", 0)
        assert record["loss"] == pytest.approx(record["info_nce"] + aligned, abs=1e-9)
        assert record["lr"] == learning_rate(spec.recipe, record["epoch"])
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
        facts.append(pretrain_encoder(make_spec(seed=seed), dataset, [], **paths).facts)
    assert facts[0] == facts[1]
    for key in ("init_sha256", "final_sha256", "first_batch_sha256"):
        assert facts[0][key] != facts[2][key]


def test_normalisation_of_the_spec_wins(tmp_path):
    statistics = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    setup = set_up(make_spec(normalisation=statistics), make_prepared(), [], CPU)
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
    {"alignment_weight": 0.9}, {"positives": "none"}, {"method": "moco"}, {"seed": 3},
    {"options": {"temperature": 0.5}}, {"options": {"hidden": 8}},
    {"options": {"projection": 4}}, {"options": {"forward": "four_gpu"}},
    {"options": {"forward": "separate"}},
])  # fmt: skip
def test_every_field_of_the_spec_changes_the_result(tmp_path, change):
    dataset = write_dataset(tmp_path / "toy")
    plain = pretrain_encoder(make_spec(), dataset, [], **outputs(tmp_path / "a"))
    changed = pretrain_encoder(make_spec(**change), dataset, [], **outputs(tmp_path / "b"))
    assert plain.facts["final_sha256"] != changed.facts["final_sha256"]


def test_batch_larger_than_the_data_is_refused():
    spec = make_spec(recipe={"batch_size": 21})
    with pytest.raises(
        ConfigError, match="batch_size 21 exceeds the 20 training images of dataset toy"
    ):
        set_up(spec, make_prepared(), [], CPU)


def test_queue_that_is_no_multiple_of_the_batch_is_refused():
    spec = make_spec("moco", options={"queue": 20})
    with pytest.raises(ConfigError, match="queue 20 is not a multiple of batch_size 8"):
        set_up(spec, make_prepared(), [], CPU)


def test_unknown_option_is_refused_with_the_nearest_name():
    spec = make_spec(options={"temprature": 0.1})
    with pytest.raises(ConfigError, match=r'unknown key "temprature".*"temperature"'):
        set_up(spec, make_prepared(), [], CPU)


def test_bank_of_another_dataset_is_refused(tmp_path):
    bank = write_bank(tmp_path / "other.mix", make_prepared(seed=9))
    with pytest.raises(DataError, match=r"other.mix belongs to another dataset"):
        set_up(make_spec(positives="bank"), make_prepared(), [bank], CPU)


def test_two_banks_are_refused(tmp_path):
    bank = write_bank(tmp_path / "toy.mix", make_prepared())
    with pytest.raises(ConfigError, match="at most one bank, found 2"):
        set_up(make_spec(positives="bank"), make_prepared(), [bank, bank], CPU)


def test_loss_that_is_not_finite_stops_before_the_update(tmp_path, monkeypatch):
    dataset, paths = write_dataset(tmp_path / "toy"), outputs(tmp_path / "run")
    seen = {}

    def spoilt(step, weight):
        parts = objective(step, weight)
        if seen.setdefault("steps", 0) == 3:
            parts["loss"] = parts["loss"] * torch.nan
        seen["steps"] += 1
        return parts

    real = torch.optim.SGD.step
    monkeypatch.setattr(loop, "objective", spoilt)
    updates = []
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: (updates.append(1), real(self)))
    with pytest.raises(ClspError, match=r"step 3 \(epoch 1\): the loss is not finite.*loss nan"):
        pretrain_encoder(make_spec(), dataset, [], **paths)
    assert len(updates) == 3
    assert not paths["final"].exists()


def test_manifest_of_the_inputs_is_only_read(tmp_path):
    dataset = write_dataset(tmp_path / "toy")
    before = json.dumps(read_manifest(dataset.manifest).statement)
    pretrain_encoder(make_spec(), dataset, [], **outputs(tmp_path / "run"))
    assert json.dumps(read_manifest(dataset.manifest).statement) == before
    dataset.verify()
