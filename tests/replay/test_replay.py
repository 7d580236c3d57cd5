"""Samples of real, tiny artefacts come out again bit by bit, in a process of their own."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusing import bank_spec, denoiser_spec, write_denoiser
from diffusing import write_dataset as write_images
from injecting import edit_statement
from pretraining import make_spec, write_bank, write_dataset

from clsp.audit.checks import a08_labels
from clsp.audit.checks.a11_replay import images_differ, losses_differ
from clsp.audit.items import lines_sha256, read_items
from clsp.audit.replaying import Subprocess
from clsp.audit.weights import digest_of, read_tensors
from clsp.config.schema import DatasetSpec
from clsp.config.strict import parse
from clsp.data.prepare import prepare_dataset
from clsp.data.prepared import open_prepared
from clsp.job import Call, run
from clsp.pretrain.run import pretrain_encoder
from clsp.replay.run import main
from clsp.runtime.canonical import canonical_json, read_json, sha256_array, sha256_file
from clsp.runtime.checkpoint import save_tensors, tensors_sha256
from clsp.runtime.errors import ClspError
from clsp.runtime.history import read_history
from clsp.runtime.manifest import Artefact, read_manifest
from clsp.synthesis.shard import generate_shard

OUTPUTS = {
    "encoder": "encoder.safetensors",
    "start": "checkpoints/start.safetensors",
    "middle": "checkpoints/middle.safetensors",
    "final": "checkpoints/final.safetensors",
    "history": "history.jsonl",
}


def pretrained(base: Path, method: str) -> tuple:
    """A run of the real stage through the real job; the run and its inputs."""
    dataset = write_dataset(base / "data")
    bank = write_bank(base / "bank", open_prepared(dataset))
    home = base / "results/demo/runs/tiny"
    arguments = {
        "spec": canonical_json(make_spec(method, "bank").canonical()),
        "dataset": [dataset.manifest],
        "bank": [bank.manifest],
        "pairs": [],
        "scratch": base / "scratch",
        **{flag: home / name for flag, name in OUTPUTS.items()},
    }
    threads = torch.get_num_threads()
    call = Call(
        "pretrain-encoder", pretrain_encoder, arguments, home / "manifest.json", "c", threads
    )
    return run(call), [dataset, bank]


@pytest.fixture(scope="module")
def moco(tmp_path_factory):
    base = tmp_path_factory.mktemp("moco")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        yield pretrained(base, "moco")


def test_first_and_middle_steps_come_out_as_logged(moco, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    artefact, inputs = moco
    before = {p: p.read_bytes() for p in sorted(artefact.folder.rglob("*")) if p.is_file()}
    answer = Subprocess().training(artefact, inputs, 7)
    logged = read_history(artefact.folder / "history.jsonl")
    assert len(answer["records"]) == len(logged)  # fewer than twenty
    assert losses_differ(logged, answer["records"], alike=True) is None
    assert losses_differ(logged, [answer["middle"]], alike=True) is None
    assert answer["start"] is True and answer["teacher_gap"] < 1e-6
    assert answer["digest"] == answer["permuted_digest"] is not None
    assert {p: p.read_bytes() for p in sorted(artefact.folder.rglob("*")) if p.is_file()} == before


def test_a_run_with_labels_is_not_compared_under_permuted_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    artefact, inputs = pretrained(tmp_path, "supcon")
    flags = ["--run", artefact.manifest, "--inputs", *(a.manifest for a in inputs)]
    flags += ["--steps", 3, "--permute", 7, "--out", tmp_path / "out"]
    assert main(["training", *map(str, flags)]) == 0
    answer = json.loads((tmp_path / "out/replay.json").read_text())
    assert len(answer["records"]) == 3 and answer["permuted_digest"] is None


def test_a_whole_run_is_repeated_bit_by_bit_and_a_changed_one_is_seen(moco, capsys):
    artefact, inputs = moco
    flags = ["--run", str(artefact.manifest), "--inputs", *(str(a.manifest) for a in inputs)]
    assert main(["whole", *flags]) == 0
    assert capsys.readouterr().out.count(": equal") == len(OUTPUTS)
    statement = json.loads(artefact.manifest.read_text())
    statement["predicate"]["externalParameters"]["spec"]["seed"] = 1
    other = artefact.manifest.with_name("other.manifest.json")
    other.write_text(canonical_json(statement))
    flags[1] = str(other)
    assert main(["whole", *flags]) == 1
    assert "history.jsonl: differs" in capsys.readouterr().out
    other.unlink()


def test_what_a_run_does_not_read_is_refused(moco):
    artefact, inputs = moco
    for given in ([inputs[1]], [*inputs, artefact]):
        flags = ["--run", str(artefact.manifest), "--inputs", *(str(a.manifest) for a in given)]
        with pytest.raises(ClspError):
            main(["whole", *flags])


def test_candidates_come_out_as_stored_and_of_other_weights_they_do_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = write_images(tmp_path / "data")
    denoiser = write_denoiser(tmp_path / "denoiser")
    home = tmp_path / "results/demo/banks/mix/shards"
    shard = home / "1-of-1.npy"
    spec = canonical_json(bank_spec().canonical())
    given = {
        "spec": spec, "shard": "1-of-1", "denoiser": [denoiser.manifest],
        "dataset": [dataset.manifest], "images": shard, "scratch": tmp_path / "scratch",
    }  # fmt: skip
    manifest = home / "1-of-1.manifest.json"
    made = run(Call("generate-shard", generate_shard, given, manifest, "c", 1))
    stored = np.load(shard)
    pairs = np.array([[8, 1], [0, 0], [3, 1], [5, 0]])
    drawn, facts = Subprocess().candidates(made, denoiser, dataset, pairs)
    wanted = np.stack([stored[anchor, candidate] for anchor, candidate in pairs])
    assert images_differ(wanted, drawn, alike=True) is None and facts["device"] == "cpu"
    other = write_denoiser(tmp_path / "other", norm_groups=2)
    assert denoiser_spec(norm_groups=2).norm_groups == 2
    drawn, _ = Subprocess().candidates(made, other, dataset, pairs)
    assert images_differ(wanted, drawn, alike=True)
    with pytest.raises(ClspError, match="replay ended with code 2"):
        Subprocess().candidates(made, denoiser, dataset, np.array([[99, 0]]))


def prepared(base: Path, spec: dict) -> Artefact:
    """A dataset of the real stage through the real job."""
    home = base / "results/demo/data/prepared/it"
    files = {"images": "images.npy", "labels": "labels.npy", "items": "items.csv"}
    given = {flag: home / name for flag, name in {**files, "card": "card.json"}.items()}
    arguments = {"spec": canonical_json(spec), "raw": [], **given}
    call = Call("prepare-dataset", prepare_dataset, arguments, home / "manifest.json", "c", 1)
    return run(call)


def forge(dataset: Artefact) -> Artefact:
    """Exchange two training images; arrays, list, card and manifest agree with each other."""
    folder = dataset.folder
    images = np.load(folder / "images.npy")
    images[[0, 1]] = images[[1, 0]]
    np.save(folder / "images.npy", images)
    lines = [line.split(",") for line in (folder / "items.csv").read_text().splitlines()]
    lines[1][3:], lines[2][3:] = lines[2][3:], lines[1][3:]
    (folder / "items.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    card = json.loads((folder / "card.json").read_text())
    sources = [line[3] for line in lines[1 : 1 + card["splits"]["train"][1]]]
    card |= {"images_sha256": sha256_array(images), "source_sha256": lines_sha256(sources)}
    (folder / "card.json").write_text(canonical_json(card) + "\n")
    edit_statement(dataset.manifest, lambda _: None)
    return read_manifest(dataset.manifest)


def test_a_dataset_comes_out_as_stored_and_a_forged_one_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = {"kind": "digits", "size": 8, "limit": 60, "test_fraction": 0.2, "seed": 0}
    made = prepared(tmp_path, parse(DatasetSpec, spec, "spec").canonical())
    answer = Subprocess().dataset(made, [])
    files = {path.name: sha256_file(path) for path in made.folder.iterdir()}
    assert {**answer["files"], "manifest.json": files["manifest.json"]} == files
    suite = SimpleNamespace(sha256=sha256_file)
    assert a08_labels._differs(suite, made, answer) is None
    forged = forge(made)
    forged.verify()
    labels, card = np.load(forged.folder / "labels.npy"), read_json(forged.folder / "card.json")
    items = read_items(forged.folder / "items.csv")
    for problems in (
        a08_labels._columns(items, labels, card),
        a08_labels._card(items, labels, card),
        a08_labels._arrays(forged.folder, labels, card),
    ):
        assert list(problems) == []  # nothing else finds it
    assert a08_labels._differs(suite, forged, Subprocess().dataset(forged, []))
    with pytest.raises(ClspError, match=r"replay ended with code 2: .*reads no fetched files"):
        Subprocess().dataset(forged, [forged])


def test_the_audit_digests_tensors_as_checkpoints_do(tmp_path):
    tensors = {"b": torch.arange(6.0).view(2, 3).T, "a": torch.tensor(7), "c": torch.ones(0, 2)}
    save_tensors(tmp_path / "x.safetensors", tensors, {"step": "1"})
    read, metadata = read_tensors(tmp_path / "x.safetensors")
    assert digest_of(read) == tensors_sha256(tensors) and metadata == {"step": "1"}
