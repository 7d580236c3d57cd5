"""Faults in the ledger, in weights and features, in times, formats and what is computed again."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from injecting import (
    RUN,
    Tree,
    edit_arrays,
    edit_ledger,
    edit_mlflow,
    edit_statement,
    fault,
    keep_time,
)
from safetensors.numpy import load_file, save, save_file
from tree_weights import tensors_sha256

from clsp.audit.weights import read_tensors
from clsp.runtime.canonical import canonical_json

MOCO = RUN.replace("simclr", "moco")
REPLAYED = ("--level", "L3", "--nonce", "00", "--replay-runs", "99")


def _lines(tree: Tree) -> list[str]:
    return (tree.results / "ledger.jsonl").read_text().splitlines(keepends=True)


def _write(tree: Tree, lines: list[str]) -> None:
    keep_time(tree.results / "ledger.jsonl", "".join(lines).encode())


def _uid(tree: Tree, kind: str = "runs", run: str = RUN) -> str:
    return json.loads(tree.run(kind, "manifest.json", run).read_text())["predicate"]["run_uid"]


@fault("A04")
def ledger_line_edited(tree: Tree) -> None:
    lines = _lines(tree)
    lines[3] = lines[3].replace('"seconds":1.0', '"seconds":1.5')
    _write(tree, lines)


@fault("A04")
def ledger_line_dropped(tree: Tree) -> None:
    lines = _lines(tree)
    del lines[3]
    _write(tree, lines)


@fault("A04")
def failed_attempt_dropped(tree: Tree) -> None:
    """A failure was recorded; later its two lines are taken out, and nothing else is changed."""

    def fail(lines: list[dict[str, Any]]) -> None:
        start = {"event": "start", "attempt": "f", "manifest": "results/runs/x/manifest.json"}
        end = {"event": "end", "attempt": "f", "status": "failed", "reason": "diverged"}
        lines[2:2] = [start, end]

    edit_ledger(tree.results / "ledger.jsonl", fail)
    lines = _lines(tree)
    del lines[2:4]
    _write(tree, lines)


@fault("A04")
def ledger_ends_in_half_a_line(tree: Tree) -> None:
    _write(tree, [*_lines(tree), '{"event":"sta'])


@fault("A04", code=3)
def ledger_missing(tree: Tree) -> None:
    (tree.results / "ledger.jsonl").unlink()


@fault("A04", options=("--anchor", "f" * 64))
def ledger_lacks_the_line_noted_earlier(tree: Tree) -> None:
    """As if its end had been cut off after somebody noted the head."""


@fault("A30")
def attempt_taken_out_of_the_ledger(tree: Tree) -> None:
    """The chain is made to agree, but the run has no attempt any more."""
    uid = _uid(tree)

    def drop(lines: list[dict[str, Any]]) -> None:
        lines[:] = [line for line in lines if line["attempt"] != uid]

    edit_ledger(tree.results / "ledger.jsonl", drop)


@fault("A30")
def attempt_failed_without_reason(tree: Tree) -> None:
    def fail(lines: list[dict[str, Any]]) -> None:
        start = {"event": "start", "attempt": "f", "manifest": "results/runs/x/manifest.json"}
        lines += [start, {"event": "end", "attempt": "f", "status": "failed"}]

    edit_ledger(tree.results / "ledger.jsonl", fail)


@fault("A30")
def manifest_of_a_failed_attempt(tree: Tree) -> None:
    uid = _uid(tree)

    def fail(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["attempt"] == uid and line["event"] == "end":
                line.update(status="failed", reason="diverged")

    edit_ledger(tree.results / "ledger.jsonl", fail)


@fault("A22", "A30")
def manifest_written_by_hand(tree: Tree) -> None:
    """Whoever edits a manifest has to forge the ledger as well."""
    path = tree.run("transfer", "manifest.json")
    keep_time(path, path.read_bytes().replace(b'"threads":1', b'"threads":2'))


@fault(code=0, notes=("A30",))
def seed_left_out(tree: Tree) -> None:
    """A run of another seed was finished and is not in params.yaml."""

    def add(lines: list[dict[str, Any]]) -> None:
        place = f"results/runs/{RUN[:-1]}9/manifest.json"
        start = {"event": "start", "attempt": "9", "manifest": place, "stage": "pretrain-encoder"}
        lines += [start, {"event": "end", "attempt": "9", "status": "completed"}]

    edit_ledger(tree.results / "ledger.jsonl", add)


@fault("A22", notes=("A07",))
def other_packages(tree: Tree) -> None:
    edit_statement(
        tree.run("features", "manifest.json"),
        lambda p: p["internalParameters"].update(lock_sha256="1" * 64),
    )


@fault("A22", notes=("A32",))
def other_hardware(tree: Tree) -> None:
    gpu = {"name": "NVIDIA H100", "memory_bytes": 80 << 30}
    edit_statement(
        tree.run("runs", "manifest.json"), lambda p: p["internalParameters"].update(gpu=gpu)
    )


@fault("A22", "A28")
def duration_below_zero(tree: Tree) -> None:
    edit_statement(
        tree.run("runs", "manifest.json"), lambda p: p["runDetails"].update(seconds=-1.0)
    )


@fault("A28")
def faster_than_any_device(tree: Tree) -> None:
    uid = _uid(tree)

    def hurry(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["attempt"] == uid and line["event"] == "end":
                line["seconds"] = 1e-5

    edit_ledger(tree.results / "ledger.jsonl", hurry)


@fault("A22", notes=("A28",))
def clock_set_back(tree: Tree) -> None:
    edit_statement(
        tree.run("features", "manifest.json"),
        lambda p: p["runDetails"].update(finished="2023-12-31T23:00:01+00:00"),
    )


@fault("A03", "A29")
def pickle_among_results(tree: Tree) -> None:
    tree.run("runs", "state.npy").write_bytes(pickle.dumps([1], protocol=4))


@fault("A03", "A29")
def checkpoint_that_torch_would_unpickle(tree: Tree) -> None:
    tree.run("runs", "model.pt").write_bytes(b"PK\x03\x04 archive/data.pkl")


@fault("A03", "A29")
def bomb_instead_of_predictions(tree: Tree) -> None:
    """An archive that says it holds much more than it weighs."""
    header = io.BytesIO()
    form = {"descr": "<f4", "fortran_order": False, "shape": (4000, 1000)}
    np.lib.format.write_array_header_1_0(header, form)
    with zipfile.ZipFile(tree.run("runs", "bomb.npz"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("logits.npy", header.getvalue() + bytes(16_000_000))


@fault("A29", "A03")
def header_of_an_enormous_tensor_file(tree: Tree) -> None:
    path = tree.run("runs", "checkpoints/other.safetensors")
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")


@fault("A08", "A19", "A22", "A24", "A29")
def labels_of_python_objects(tree: Tree) -> None:
    path = tree.results / "data/target-mini/labels.npy"
    np.save(path, np.load(path).astype(object), allow_pickle=True)
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A22", "A24", "A31")
def class_counts_denied(tree: Tree) -> None:
    path = tree.results / "data/target-mini/card.json"
    card = json.loads(path.read_text())
    card["counts"]["test"][0] += 1
    path.write_text(canonical_json(card))
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A22", "A25")
def fewer_images_seen_than_steps_take(tree: Tree) -> None:
    edit_statement(tree.run("runs", "manifest.json"), lambda p: p["counters"].update(samples=12))


def _edit_weights(
    tree: Tree,
    name: str,
    change: Callable[[dict[str, np.ndarray], dict[str, str]], None],
    run: str = RUN,
) -> None:
    """Change tensors or metadata of a checkpoint; digests and manifest agree."""
    path = tree.run("runs", f"checkpoints/{name}.safetensors", run)
    tensors, about = read_tensors(path)
    change(tensors, about)
    path.write_bytes(save(tensors, about))
    key = {"start": "init_sha256", "final": "final_sha256"}.get(name)

    def forge(predicate: dict[str, Any]) -> None:
        if key:
            predicate["facts"][key] = tensors_sha256(tensors)

    edit_statement(path.parents[1] / "manifest.json", forge)


@fault("A16", "A22", "A24")
def encoder_exchanged(tree: Tree) -> None:
    """The weights that are judged are not those that training left; every hash agrees."""
    other = tree.run("runs", "encoder.safetensors", RUN.replace("s1", "s2"))
    tree.run("runs", "encoder.safetensors").write_bytes(other.read_bytes())
    edit_statement(tree.run("runs", "manifest.json"), lambda _: None)


@fault("A16", "A22", "A24")
def checkpoint_of_other_settings(tree: Tree) -> None:
    _edit_weights(tree, "final", lambda _, about: about.update(spec_sha256="0" * 64))


@fault("A16", "A22", "A24")
def checkpoint_of_an_earlier_epoch(tree: Tree) -> None:
    _edit_weights(tree, "final", lambda _, about: about.update(step="3", epoch="1"))


@fault("A16", "A22", "A24")
def encoder_never_trained(tree: Tree) -> None:
    """Last checkpoint and encoder are those before the first step."""
    start, _ = read_tensors(tree.run("runs", "checkpoints/start.safetensors"))
    weights = {"conv.weight": start["encoder.conv.weight"]}
    save_file(weights, tree.run("runs", "encoder.safetensors"))
    _edit_weights(tree, "final", lambda tensors, _: tensors.update(start))


@fault("A16", "A22", "A24")
def weights_not_finite(tree: Tree) -> None:
    def spoil(tensors: dict[str, np.ndarray], _: dict[str, str]) -> None:
        tensors["encoder.conv.weight"][0, 0] = np.nan

    _edit_weights(tree, "middle", spoil)


@fault("A16", "A22", "A24", within="taught")
def average_frozen(tree: Tree) -> None:
    start, _ = read_tensors(tree.run("runs", "checkpoints/start.safetensors", MOCO))
    name = "teacher.network.0.conv.weight"
    _edit_weights(tree, "final", lambda tensors, _: tensors.update({name: start[name]}), MOCO)


@fault("A16", "A22", "A24", within="taught")
def average_is_the_online_network(tree: Tree) -> None:
    def copy(tensors: dict[str, np.ndarray], _: dict[str, str]) -> None:
        tensors["teacher.network.0.conv.weight"] = tensors["encoder.conv.weight"]

    _edit_weights(tree, "final", copy, MOCO)


@fault("A16", "A22", within="taught")
def average_updated_too_rarely(tree: Tree) -> None:
    edit_statement(
        tree.run("runs", "manifest.json", MOCO), lambda p: p["counters"].update(ema_updates=1)
    )


@fault("A16", "A22", "A24", within="taught")
def queue_of_another_length_of_training(tree: Tree) -> None:
    def turn(tensors: dict[str, np.ndarray], _: dict[str, str]) -> None:
        tensors["queue.pointer"] = np.array(4)

    _edit_weights(tree, "final", turn, MOCO)


def _edit_features(tree: Tree, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = tree.run("features", "features.safetensors")
    tensors = load_file(path)
    save_file({name: change(array) for name, array in tensors.items()}, path)
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A17", "A22", "A23", "A24")
def features_of_a_collapsed_encoder(tree: Tree) -> None:
    _edit_features(tree, lambda features: np.ones_like(features))


@fault("A17", "A22", "A23", "A24")
def features_on_one_line(tree: Tree) -> None:
    def flatten(features: np.ndarray) -> np.ndarray:
        return features[:, :1] * np.arange(1, 9, dtype=np.float32)

    _edit_features(tree, flatten)


@fault("A17", "A22", "A23", "A24")
def dimensions_that_never_change(tree: Tree) -> None:
    def kill(features: np.ndarray) -> np.ndarray:
        features[:, 5:] = 0.5
        return features

    _edit_features(tree, kill)


@fault("A22", "A23", "A26", "A50")
def probe_trained_on_test(tree: Tree) -> None:
    """All predictions are right, and every record of them agrees."""
    path = tree.run("probes", "linear.npz")

    def learn(arrays: dict[str, np.ndarray]) -> None:
        arrays["logits"] = np.eye(3, dtype=np.float32)[arrays["labels"]]

    edit_arrays(path, learn)
    counts = {"value": 100.0, "correct": 9, "total": 9, "per_class": [[3, 3]] * 3}
    results = tree.run("probes", "linear.json")
    document = json.loads(results.read_text())
    document["results"][0].update(counts)
    results.write_text(canonical_json(document))

    def forge(predicate: dict[str, Any]) -> None:
        predicate["facts"]["results"][0].update(counts)
        predicate["metrics"]["linear/top1"] = 100.0
        edit_mlflow(tree, "linear/top1", 100.0, predicate["mlflow_run_id"])

    edit_statement(tree.run("probes", "manifest.json"), forge)


@fault(code=0, notes=("A18",), within="judged")
def encoder_no_better_than_an_untrained_one(tree: Tree) -> None:
    """The random labels of the tiny tree make it so from the start; nothing is done."""


@fault("A11", "A22")
def bank_drawn_with_raw_weights(tree: Tree) -> None:
    """The last iterate was sampled instead of the moving average, and the bank says so."""
    denoiser = json.loads((tree.results / "denoisers/digits/manifest.json").read_text())
    raw = denoiser["predicate"]["facts"]["tensors_sha256"]["raw"]
    edit_statement(
        tree.results / "banks/digits.mix/manifest.json",
        lambda p: p["facts"].update(denoiser={"tensors_sha256": raw, "weights": "raw"}),
    )


@fault("A10", "A11", "A22", "A24", options=REPLAYED)
def candidates_drawn_by_somebody_else(tree: Tree) -> None:
    """Every image of the bank is another than its settings give, by three grey levels."""
    path = tree.results / "banks/digits.mix/images.npy"
    np.save(path, np.load(path) // 4 * 4 + 3)
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A11", "A20", "A22", "A24", options=REPLAYED)
def losses_of_another_run(tree: Tree) -> None:
    """The log adds up, but it is not what the checkpoint and the settings give."""
    path = tree.run("runs", "history.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record["info_nce"] -= 0.004
        record["loss"] = record["info_nce"] + record.get("alignment", 0.0)
    path.write_text("".join(canonical_json(record) + "\n" for record in records))
    last = [r["loss"] for r in records if r["epoch"] == records[-1]["epoch"]]
    loss = {"pretrain/loss": sum(last) / len(last)}
    edit_statement(path.with_name("manifest.json"), lambda p: p["metrics"].update(loss))


@fault("A12", options=REPLAYED)
def labels_used_in_secret(tree: Tree) -> None:
    """Permuted labels give other weights in a run that says it saw none."""
    answer = {"permuted_digest": "2" * 64}
    (tree.results.parent / "answers.json").write_text(json.dumps(answer))


@fault("A08", options=REPLAYED)
def dataset_is_not_what_its_source_gives(tree: Tree) -> None:
    """Arrays, list, card and all that was made from them agree; only the source gives others."""
    answer = {"files": {"target-mini": {"images.npy": "3" * 64, "items.csv": "4" * 64}}}
    (tree.results.parent / "answers.json").write_text(json.dumps(answer))


@fault("A16", options=REPLAYED)
def average_moves_otherwise_than_it_says(tree: Tree) -> None:
    (tree.results.parent / "answers.json").write_text(json.dumps({"teacher_gap": 0.01}))
