"""Exported encoders: what cards say is what records say, and only where digests hold."""

import json
import shutil
import subprocess

import pytest
import torch
import yaml
from exporting import blocks, inside, naming_places
from huggingface_hub import ModelCard, parse_eval_result_entries
from results_tree import tiny_params

from clsp.config.grid import expand_runs
from clsp.export import model as exported
from clsp.export.evidence import Evidence
from clsp.export.model import chosen_runs, export_model
from clsp.models.encoder import Encoder, normalise
from clsp.report.cells import DEMONSTRATION
from clsp.runtime.canonical import read_json, sha256_file
from clsp.runtime.checkpoint import load_tensors
from clsp.runtime.errors import ConfigError, DataError, IncompleteError

SLUG = "digits.tiny.simclr.synthetic.s1"
RUN = expand_runs(tiny_params())[SLUG]


def _evidence(tree):
    return Evidence(tiny_params(), tree.results, tree.reports)


def _export(tree, name="model", **options):
    final = tree.reports / "exports/models" / name
    export_model(_evidence(tree), RUN, final, **options)
    return final


def _metric(tree):
    return read_json(tree.run("probes", "linear.json", SLUG))["results"][0]


def test_everything_in_a_card_runs_and_gives_the_features_of_the_run(tree):
    final = _export(tree)
    card = (final / "README.md").read_text()
    names = {}
    with inside(final):
        for code in blocks(card, "python"):
            exec(compile(code, "README.md", "exec"), names)
        for code in blocks(card, "sh"):
            done = subprocess.run(["bash", "-ec", code], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert "OK" in done.stdout
    assert len(blocks(card, "python")) == len(blocks(card, "sh")) == 1

    encoder = Encoder(RUN.spec.encoder).eval()
    tensors, _ = load_tensors(tree.run("runs", "encoder.safetensors", SLUG))
    encoder.load_state_dict(tensors, strict=True)
    images = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    statistics = exported._input_statistics(
        RUN,
        exported.pretrained(_evidence(tree), RUN),
        read_json(tree.results / "data/digits/card.json"),
    )
    with torch.no_grad():
        pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        theirs = names["encoder"]((pixels - names["mean"]) / names["std"])
        assert torch.equal(encoder(normalise(images, statistics)), theirs)


def test_numbers_of_a_card_are_those_of_the_metric_files(tree):
    final, metric = _export(tree), _metric(tree)
    predictions = sha256_file(tree.run("probes", metric["predictions"]["file"], SLUG))
    manifest = sha256_file(tree.run("probes", "manifest.json", SLUG))

    card = ModelCard.load(final / "README.md")
    linear = next(r for r in card.data.eval_results if "best" not in r.metric_name)
    assert linear.metric_value == metric["value"]
    assert linear.dataset_split == "test"
    assert linear.dataset_revision == sha256_file(tree.results / "data/digits/card.json")
    assert linear.metric_args["correct"] == metric["correct"]
    assert linear.metric_args["predictions_sha256"] == predictions
    assert card.data.license == "other"
    assert card.data.license_link == "LICENSE.md"
    assert (final / "LICENSE.md").is_file()

    stored = yaml.safe_load((final / ".eval_results/linear.yaml").read_text())
    entry = parse_eval_result_entries(stored)[0]
    assert (entry.dataset_id, entry.task_id, entry.value) == ("digits", "linear", metric["value"])
    assert f"{metric['correct']} of {metric['total']} correct" in entry.notes
    assert f"predictions_sha256 {predictions}" in entry.notes
    assert f"manifest_sha256 {manifest}" in entry.notes
    assert isinstance(entry.date, str)

    row = next(line for line in card.text.splitlines() if line.startswith("| linear probe |"))
    assert f"| {metric['value']:.2f} | {metric['correct']} of {metric['total']} |" in row
    assert "(3 of 3)" in row


def test_a_card_says_what_matters(tree):
    final = _export(tree)
    card = (final / "README.md").read_text()
    weights = sha256_file(tree.run("runs", "encoder.safetensors", SLUG))
    assert sha256_file(final / "model.safetensors") == weights
    about = json.loads((final / "config.json").read_text())
    assert about["clsp"]["weights_sha256"] == weights
    assert about["num_features"] == 64
    for said in (
        DEMONSTRATION,
        sha256_file(tree.run("runs", "manifest.json", SLUG)),
        "a bank of 2 synthetic images per training image",
        "Labels used in pretraining: none",
        "Licence: CC0.",
        "- D01: ",
        "Unsigned records prove consistency, not authorship.",
        "not audited",
    ):
        assert said in card
    assert naming_places(final) == []


def test_the_same_records_give_the_same_bytes(tree):
    first, second = _export(tree, "first"), _export(tree, "second")
    for path in (p for p in first.rglob("*") if p.is_file()):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()


def test_a_licence_and_a_source_can_be_named(tree):
    final = _export(tree, licence="cc-by-4.0", published="https://example.org/evidence")
    assert ModelCard.load(final / "README.md").data.license == "cc-by-4.0"
    assert "publishes them under: cc-by-4.0" in (final / "LICENSE.md").read_text()
    stored = yaml.safe_load((final / ".eval_results/linear.yaml").read_text())
    assert stored[0]["source"]["url"] == "https://example.org/evidence"


def _change_metric(tree):
    path = tree.run("probes", "linear.json", SLUG)
    path.write_text(path.read_text().replace('"correct":', '"correct": '))
    return "linear.json: sha256"


def _change_predictions(tree):
    path = tree.run("probes", _metric(tree)["predictions"]["file"], SLUG)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return r"\.npz: sha256"


def _change_weights(tree):
    path = tree.run("runs", "encoder.safetensors", SLUG)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return "encoder.safetensors: sha256"


def _change_manifest(tree):
    path = tree.run("probes", "manifest.json", SLUG)
    path.write_text(path.read_text().replace('"value":', '"value": '))
    return "manifest.json: changed after it was made"


def _change_ledger(tree):
    path = tree.results / "ledger.jsonl"
    path.write_text(path.read_text().replace('"completed"', '"complete"', 1))
    return "ledger.jsonl: line"


def _change_card(tree):
    path = tree.results / "data/digits/card.json"
    path.write_text(path.read_text().replace("CC0", "CC BY 4.0"))
    return "card.json: sha256"


@pytest.mark.parametrize(
    "change",
    [
        _change_metric,
        _change_predictions,
        _change_weights,
        _change_manifest,
        _change_ledger,
        _change_card,
    ],
)
def test_what_was_changed_is_not_exported(tree, change):
    said = change(tree)
    with pytest.raises(DataError, match=said):
        _export(tree)
    assert not (tree.reports / "exports/models/model").exists()


def test_a_bank_that_the_run_has_not_read_is_refused(tree):
    other = tree.run("runs", "manifest.json", "digits.tiny.simclr.none.s0")
    evidence = _evidence(tree)
    made = exported.pretrained(evidence, RUN)
    foreign = type(made)(made.manifest, json.loads(other.read_text()))
    with pytest.raises(DataError, match=r"not what .* says it was made from"):
        exported._bank(evidence, RUN, foreign)


def test_what_was_not_run_is_a_dash(tree):
    shutil.rmtree(tree.run("probes", "", SLUG))
    final = _export(tree)
    assert "| — | not run |" in (final / "README.md").read_text()
    assert "(2 of 3)" in (final / "README.md").read_text()
    assert not (final / ".eval_results/linear.yaml").exists()


def test_only_runs_that_are_finished_and_known_are_exported(tree):
    evidence = _evidence(tree)
    assert len(chosen_runs(evidence, [])) == 6
    with pytest.raises(ConfigError, match=r'did you mean "digits\.tiny\.simclr\.synthetic\.s1"'):
        chosen_runs(evidence, ["digits.tiny.simclr.synthetik.s1"])
    shutil.rmtree(tree.run("runs", "", SLUG))
    with pytest.raises(IncompleteError, match=f"{SLUG}: not finished"):
        chosen_runs(_evidence(tree), [SLUG])
    assert len(chosen_runs(_evidence(tree), [])) == 5
    shutil.rmtree(tree.results / "runs")
    with pytest.raises(IncompleteError, match="no pretraining run is finished"):
        chosen_runs(_evidence(tree), [])


def test_results_without_a_ledger_are_not_exported(tree):
    (tree.results / "ledger.jsonl").unlink()
    with pytest.raises(IncompleteError, match=r"ledger\.jsonl: no such file"):
        _export(tree)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_whatever_interrupts_leaves_the_export_that_was_there(tree, monkeypatch, error):
    final = _export(tree)
    (final / "mark").write_text("old")

    def stop(*_):
        raise error

    monkeypatch.setattr(exported, "render_card", stop)
    with pytest.raises((KeyboardInterrupt, DataError)):
        _export(tree)
    assert (final / "mark").read_text() == "old"
    assert [path.name for path in final.parent.iterdir()] == ["model"]


def test_an_export_replaces_the_one_before_and_sweeps_what_a_killed_one_left(tree):
    final = _export(tree)
    (final / "mark").write_text("old")
    (final.parent / ".partial-model").mkdir()
    (final.parent / ".partial-model/half").write_text("half")
    _export(tree)
    assert not (final / "mark").exists()
    assert [path.name for path in final.parent.iterdir()] == ["model"]
