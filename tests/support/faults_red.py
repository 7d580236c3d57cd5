"""Forgeries of files, schemas and names by somebody who knows the audit; most records agree."""

import json
import os
import zipfile
from typing import Any

import numpy as np
from faults_red_tools import change_manifest, redraw, rescore, settle, settle_ledger
from injecting import RUN, Tree, change_store, edit_arrays, edit_ledger, edit_statement, fault

from clsp.runtime.canonical import canonical_json, sha256_json

OTHER = RUN.replace("s1", "s2")
BANK = "banks/digits.mix"


@fault("A03")
def pipe_instead_of_labels(tree: Tree) -> None:
    """Whoever opens it waits for ever."""
    path = tree.results / "data/digits/labels.npy"
    path.unlink()
    os.mkfifo(path)


@fault("A03")
def pipe_among_results(tree: Tree) -> None:
    os.mkfifo(tree.run("runs", "state.npy"))


@fault("A03")
def endless_device_linked(tree: Tree) -> None:
    path = tree.results / "data/digits/manifest.json"
    path.unlink()
    path.symlink_to("/dev/zero")


@fault("A03")
def ledger_is_a_link(tree: Tree) -> None:
    path = tree.results / "ledger.jsonl"
    path.rename(path.with_name(".elsewhere.jsonl"))
    path.symlink_to(".elsewhere.jsonl")


@fault(code=0, notes=("A03",))
def file_beside_the_artefacts(tree: Tree) -> None:
    (tree.reports / "better.html").write_text("<b>99.9</b>")


@fault("A03")
def name_that_steers_a_terminal(tree: Tree) -> None:
    tree.run("runs", "\x1b[2J\nPASS.json").write_text("{}")


@fault("A03")
def name_that_is_no_text(tree: Tree) -> None:
    tree.run("runs", os.fsdecode(b"\xff\xfe.json")).write_text("{}")


@fault("A01", "A22", "A24", "A50")
def half_a_character_in_manifest(tree: Tree) -> None:
    path = tree.run("runs", "manifest.json")
    path.write_text(path.read_text().replace('"encoder.safetensors"', '"enc\\ud800"', 1))


@fault("A01", "A22", "A26", "A50")
def predictions_of_another_folder(tree: Tree) -> None:
    def point(predicate: dict[str, Any]) -> None:
        names = predicate["facts"]["results"][0]["predictions"]
        names["file"] = f"../{OTHER}/linear.npz"

    change_manifest(tree.run("probes", "manifest.json"), point)


@fault("A01", "A22", "A24", "A50")
def file_outside_named(tree: Tree) -> None:
    path = tree.run("runs", "manifest.json")
    statement = json.loads(path.read_text())
    extra = {"name": "/etc/hostname", "digest": {"sha256": "0" * 64}, "size": 1}
    statement["subject"].append(extra)
    path.write_text(canonical_json(statement))


@fault("A02")
def size_of_file_misstated(tree: Tree) -> None:
    path = tree.run("runs", "manifest.json")
    statement = json.loads(path.read_text())
    statement["subject"][0]["size"] += 7
    path.write_text(canonical_json(statement) + "\n")
    settle_ledger(tree)
    redraw(tree)


@fault("A10", "A29")
def bytes_behind_an_array(tree: Tree) -> None:
    path = tree.results / BANK / "images.npy"
    path.write_bytes(path.read_bytes() + b"more" * 9)
    settle(tree)


@fault("A08", "A19", "A22", "A26", "A29", "A50")
def archive_with_a_member_twice(tree: Tree) -> None:
    path = tree.run("probes", "linear.npz")
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in [*members, members[0]]:
            archive.writestr(name, content)
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A02", "A08", "A19", "A26", "A29", "A50")
def bomb_under_the_name_of_predictions(tree: Tree) -> None:
    """Whoever inflates it needs three gigabytes; nobody does."""
    path = tree.run("probes", "linear.npz")
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    with open(path, "wb") as stream:
        np.savez_compressed(stream, **{**arrays, "logits": np.zeros((1 << 20, 3), np.float32)})


@fault("A08", "A09", "A22", "A24")
def list_with_an_open_quote(tree: Tree) -> None:
    path = tree.results / "data/digits/items.csv"
    path.write_text(path.read_text().replace("train/3", '"train/3'))
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A05", "A20")
def setting_true_instead_of_one(tree: Tree) -> None:
    """Python takes true for 1; the hash of the settings does not."""

    def change(predicate: dict[str, Any]) -> None:
        settings = predicate["externalParameters"]
        settings["spec"]["linear"]["learning_rate"] = True
        settings["spec_sha256"] = sha256_json(settings["spec"])

    change_manifest(tree.run("probes", "manifest.json"), change)
    settle(tree)


@fault("A19", "A22")
def result_doubled(tree: Tree) -> None:
    def double(predicate: dict[str, Any]) -> None:
        results = predicate["facts"]["results"]
        results.insert(0, {**results[0], "value": 99.9})

    edit_statement(tree.run("probes", "manifest.json"), double)


@fault("A19", "A22")
def result_added_to_the_metric_file(tree: Tree) -> None:
    path = tree.run("probes", "linear.json")
    document = json.loads(path.read_text())
    document["results"].append({**document["results"][0], "variant": "best_epoch", "value": 99.9})
    path.write_text(canonical_json(document))
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A19")
def metric_without_predictions(tree: Tree) -> None:
    """A better number, in the manifest and in MLflow, that no prediction stands behind."""
    path = tree.run("probes", "manifest.json")
    held = json.loads(path.read_text())["predicate"]["mlflow_run_id"]
    change_manifest(path, lambda p: p["metrics"].update({"linear_final/top1": 99.9}))
    _add_to_store(tree, held, "linear_final/top1")
    settle(tree)


def _add_to_store(tree: Tree, run: str, key: str) -> None:
    for table in ("metrics", "latest_metrics"):
        columns = "key, value, timestamp, run_uuid, step, is_nan"
        change_store(
            tree, f"insert into {table} ({columns}) values (?, 99.9, 1, ?, 0, 0)", (key, run)
        )


@fault("A20")
def metric_added_to_mlflow(tree: Tree) -> None:
    held = json.loads(tree.run("probes", "manifest.json").read_text())["predicate"]
    _add_to_store(tree, held["mlflow_run_id"], "linear/top1_final")


@fault("A20", code=1)
def infinite_value_in_mlflow(tree: Tree) -> None:
    change_store(tree, "update metrics set value = 9e999 where key = 'linear/top1'")


@fault(code=0, notes=("A20",))
def mirror_of_one_run_denied(tree: Tree) -> None:
    change_manifest(
        tree.run("runs", "manifest.json"), lambda p: p.update(tracking=False, mlflow_run_id=None)
    )
    settle(tree)


@fault("A19")
def logits_of_transfer_from_another_run(tree: Tree) -> None:
    """All counts, metrics, MLflow, tables and the page agree with them."""
    donor = tree.run("transfer", "predictions.npz", OTHER)
    tree.run("transfer", "predictions.npz").write_bytes(donor.read_bytes())
    rescore(tree.run("transfer"), tree)
    settle(tree)


@fault("A17")
def features_of_another_encoder(tree: Tree) -> None:
    """Scaled, so that no digest tells; the probes were learnt from them again."""
    from safetensors.numpy import load_file, save_file

    donor = load_file(tree.run("features", "features.safetensors", OTHER))
    scaled = {name: array * np.float32(2) for name, array in donor.items()}
    save_file(scaled, tree.run("features", "features.safetensors"))
    for file in ("linear.npz", "knn.npz"):
        other = tree.run("probes", file, OTHER).read_bytes()
        tree.run("probes", file).write_bytes(other)

    def stir(arrays: dict[str, np.ndarray]) -> None:
        arrays["logits"] *= np.float32(1.5)
        arrays["logits_best_rate"] *= np.float32(1.5)

    edit_arrays(tree.run("probes", "linear.npz"), stir)
    rescore(tree.run("probes"), tree)
    settle(tree)


@fault("A23")
def rows_of_logits_swapped(tree: Tree) -> None:
    """Nearly as many are right as before; the probe says other classes."""

    def swap(arrays: dict[str, np.ndarray]) -> None:
        arrays["logits"][[0, 1, 2, 3]] = arrays["logits"][[3, 2, 1, 0]]

    edit_arrays(tree.run("probes", "linear.npz"), swap)
    rescore(tree.run("probes"), tree)
    settle(tree)


@fault("A30")
def ledger_written_twice(tree: Tree) -> None:
    edit_ledger(tree.results / "ledger.jsonl", lambda lines: lines.extend([dict(x) for x in lines]))
