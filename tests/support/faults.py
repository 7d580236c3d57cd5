"""Faults to inject into a copy of the results tree, each with the ids of the checks it must set off.

Every fault takes the Tree and changes files; the audit must name exactly these checks (badges
aside) and end with the given exit code.
"""

import io
import json
import shutil
from collections.abc import Callable
from typing import Any

import faults_claims  # noqa: F401  (registers more)
import faults_data  # noqa: F401  (registers more)
import faults_denoisers  # noqa: F401  (registers more)
import faults_records  # noqa: F401  (registers more)
import faults_red  # noqa: F401  (registers more)
import faults_red_training  # noqa: F401  (registers more)
import numpy as np
import tree_imports  # noqa: F401  (registers more)
import tree_quality  # noqa: F401  (registers more)
from injecting import (
    FAULTS,
    RUN,
    Fault,
    Tree,
    change_store,
    edit_arrays,
    edit_mlflow,
    edit_statement,
    fault,
    flip_bit,
    keep_time,
)

from clsp.runtime.canonical import canonical_json

__all__ = ["FAULTS", "RUN", "Fault", "Tree", "edit_arrays", "edit_statement", "flip_bit"]


@fault("A02", "A16")
def bit_flipped_in_encoder(tree: Tree) -> None:
    flip_bit(tree.run("runs", "encoder.safetensors"))


@fault("A02", "A10")
def bit_flipped_in_bank(tree: Tree) -> None:
    flip_bit(tree.results / "banks/digits.mix/images.npy")


@fault("A02", "A10")
def bit_flipped_in_shard(tree: Tree) -> None:
    flip_bit(tree.results / "banks/digits.mix/shards/2-of-2.npy")


@fault("A02", "A16")
def file_deleted(tree: Tree) -> None:
    tree.run("runs", "checkpoints/middle.safetensors").unlink()


@fault("A02", "A08", "A19", "A26", "A29", "A50")
def bit_flipped_in_logits(tree: Tree) -> None:
    path = tree.run("probes", "linear.npz")
    content = bytearray(path.read_bytes())
    content[200] ^= 1  # inside the first array: the archive's own checksum fails
    keep_time(path, bytes(content))


@fault("A02", "A08", "A19", "A26", "A29", "A50")
def logits_truncated(tree: Tree) -> None:
    path = tree.run("probes", "linear.npz")
    keep_time(path, path.read_bytes()[:-40])


@fault("A02", "A08", "A19", "A26", "A29")
def logits_are_no_archive(tree: Tree) -> None:
    np.save(tree.run("transfer", "array.npy"), np.zeros(3))
    tree.run("transfer", "array.npy").replace(tree.run("transfer", "predictions.npz"))


@fault("A02")
def data_check_edited(tree: Tree) -> None:
    (tree.results / "provenance/data-check/checked.json").write_text("[]")


@fault("A01", "A10", "A22", "A24")
def shard_missing(tree: Tree) -> None:
    for ending in ("npy", "manifest.json"):
        (tree.results / f"banks/digits.mix/shards/2-of-2.{ending}").unlink()


@fault("A02", "A19")
def metric_file_edited(tree: Tree) -> None:
    path = tree.run("probes", "linear.json")
    document = json.loads(path.read_text())
    document["results"][0]["value"] = 99.9
    keep_time(path, canonical_json(document).encode())


@fault("A02", "A19")
def counts_edited(tree: Tree) -> None:
    path = tree.run("transfer", "transfer.json")
    document = json.loads(path.read_text())
    document["results"][0]["correct"] += 1
    keep_time(path, canonical_json(document).encode())


@fault("A19", "A22", "A24", "A26", "A50")
def results_edited_everywhere(tree: Tree) -> None:
    """Metric file, manifest, MLflow and table all tell the same lie, and all hashes agree."""
    path = tree.run("probes", "linear.json")
    document = json.loads(path.read_text())
    document["results"][0]["value"] = 99.9
    path.write_text(canonical_json(document))

    def forge(predicate: dict[str, Any]) -> None:
        predicate["facts"]["results"][0]["value"] = 99.9
        predicate["metrics"]["linear/top1"] = 99.9
        edit_mlflow(tree, "linear/top1", 99.9, predicate["mlflow_run_id"])

    edit_statement(tree.run("probes", "manifest.json"), forge)
    table = tree.reports / "tables/main.csv"
    lines = table.read_text().split("\n")
    lines[5] = lines[5].replace(lines[5].split(",")[10], "75.1")
    table.write_text("\n".join(lines))
    edit_statement(tree.reports / "tables/main.manifest.json", lambda _: None)


@fault("A20")
def mlflow_value_edited(tree: Tree) -> None:
    edit_mlflow(tree, "linear/top1", 99.9)


@fault("A20")
def mlflow_point_edited(tree: Tree) -> None:
    """Only the list of points is changed, not MLflow's table of latest values."""
    change_store(tree, "update metrics set value = 1 where key = 'transfer/target-mini'")


@fault("A20")
def mlflow_curve_edited(tree: Tree) -> None:
    """A point of one epoch, in the list of points only."""
    query = "update metrics set value = 1.5 where key = 'history/loss' and step = 2"
    change_store(tree, query)


@fault("A20")
def mlflow_last_point_edited(tree: Tree) -> None:
    """Only the latest value of a curve, as MLflow's overview shows it."""
    change_store(tree, "update latest_metrics set value = 0.1 where key = 'history/loss'")


@fault("A20")
def mlflow_curve_cut(tree: Tree) -> None:
    change_store(tree, "delete from metrics where key = 'history/alignment' and step = 2")


@fault("A20")
def mlflow_setting_edited(tree: Tree) -> None:
    query = "update params set value = '0.5' where key = 'recipe.learning_rate'"
    change_store(tree, query)


@fault("A20")
def mlflow_setting_deleted(tree: Tree) -> None:
    change_store(tree, "delete from params where key = 'seed'")


@fault("A20")
def mlflow_run_deleted(tree: Tree) -> None:
    change_store(tree, "update runs set lifecycle_stage = 'deleted'")


@fault("A20")
def mlflow_run_erased(tree: Tree) -> None:
    query = "delete from runs where run_uuid = ?"
    held = json.loads(tree.run("runs", "manifest.json").read_text())["predicate"]
    change_store(tree, query, (held["mlflow_run_id"],))


@fault("A20", code=3)
def mlflow_store_of_another_machine(tree: Tree) -> None:
    change_store(tree, "delete from runs")


@fault("A20")
def mlflow_store_damaged(tree: Tree) -> None:
    assert tree.store is not None
    keep_time(tree.store, b"SQLite format 3\0 and then nothing")


@fault("A20", code=3)
def mlflow_store_missing(tree: Tree) -> None:
    assert tree.store is not None
    tree.store.unlink()


@fault("A02", "A22")
def table_md_edited(tree: Tree) -> None:
    path = tree.reports / "tables/main.md"
    keep_time(path, path.read_bytes().replace(b"(3)", b"(5)", 1))


@fault("A02", "A22")
def table_tex_edited(tree: Tree) -> None:
    path = tree.reports / "tables/transfer.tex"
    keep_time(path, path.read_bytes().replace(b"(3)", b"(5)", 1))


@fault("A02", "A22", "A26")
def table_csv_edited(tree: Tree) -> None:
    path = tree.reports / "tables/main.csv"
    lines = path.read_text().split("\n")
    lines[1] = lines[1].replace(lines[1].split(",")[10], "99.9")
    keep_time(path, "\n".join(lines).encode())


@fault("A02", "A22", "A26")
def tasks_of_cell_blank(tree: Tree) -> None:
    path = tree.reports / "tables/main.csv"
    keep_time(path, path.read_bytes().replace(b",linear,,digits,", b",linear,,,", 1))


@fault("A02", "A22")
def frame_edited(tree: Tree) -> None:
    path = tree.reports / "frame.csv"
    keep_time(path, path.read_bytes().replace(b",none,,2,", b",none,,3,", 1))


@fault("A02", "A22")
def page_edited(tree: Tree) -> None:
    path = tree.reports / "report.html"
    keep_time(path, path.read_bytes().replace(b"SimCLR", b"SimCLS", 1))


@fault("A02", "A08", "A19", "A26", "A50")
def labels_swapped_in_predictions(tree: Tree) -> None:
    def swap(arrays: dict[str, np.ndarray]) -> None:
        labels = arrays["labels"]
        labels[[0, 1]] = labels[[1, 0]]

    edit_arrays(tree.run("probes", "linear.npz"), swap)


@fault("A02", "A08")
def labels_swapped_in_dataset(tree: Tree) -> None:
    path = tree.results / "data/target-mini/labels.npy"
    labels = np.load(path)
    labels[[-1, -2]] = labels[[-2, -1]]
    stream = io.BytesIO()
    np.save(stream, labels)
    keep_time(path, stream.getvalue())


@fault("A01", "A22", "A26", "A50")
def manifest_missing(tree: Tree) -> None:
    tree.run("probes", "manifest.json").unlink()


@fault("A01", "A22", "A26", "A50")
def run_missing(tree: Tree) -> None:
    for kind in ("runs", "features", "probes", "transfer"):
        shutil.rmtree(tree.run(kind))


@fault("A01", "A22", "A26", "A50")
def manifest_not_json(tree: Tree) -> None:
    tree.run("transfer", "manifest.json").write_text('{"a": 1, "a": 2}')


@fault("A01", "A19", "A20", "A22")
def metrics_empty(tree: Tree) -> None:
    edit_statement(tree.run("probes", "manifest.json"), lambda p: p.update(metrics={}))


@fault("A01", "A22", "A30")
def manifest_doubled(tree: Tree) -> None:
    shutil.copytree(tree.run("transfer"), tree.results / "copies" / RUN)


@fault("A03")
def file_added(tree: Tree) -> None:
    tree.run("probes", "best.json").write_text("{}")


@fault("A03")
def link_added(tree: Tree) -> None:
    path = tree.run("runs", "checkpoints/link.safetensors")
    path.symlink_to("final.safetensors")


@fault("A05", "A20", "A22", "A50")
def spec_stale(tree: Tree) -> None:
    def change(predicate: dict[str, Any]) -> None:
        predicate["externalParameters"]["spec"]["recipe"]["epochs"] = 1

    edit_statement(tree.run("runs", "manifest.json"), change)


@fault("A06", "A22")
def code_stale(tree: Tree) -> None:
    def change(predicate: dict[str, Any]) -> None:
        predicate["internalParameters"]["code"] = "0" * 16

    edit_statement(tree.run("runs", "manifest.json"), change)


@fault("A10", "A22", "A24")
def candidate_missing_in_index(tree: Tree) -> None:
    path = tree.results / "banks/digits.mix/index.npy"
    index = np.load(path)
    index["candidate"][1] = 0
    np.save(path, index)
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A10", "A22", "A24")
def candidate_blank(tree: Tree) -> None:
    path = tree.results / "banks/digits.mix/images.npy"
    images = np.load(path)
    images[3, 1] = 0
    np.save(path, images)
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A10", "A22", "A24")
def candidate_of_one_colour(tree: Tree) -> None:
    path = tree.results / "banks/digits.mix/images.npy"
    images = np.load(path)
    images[3, 1] = (10, 200, 30)
    np.save(path, images)
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A10", "A22", "A24")
def candidate_is_its_anchor(tree: Tree) -> None:
    path = tree.results / "banks/digits.mix/images.npy"
    images = np.load(path)
    images[2, 0] = np.load(tree.results / "data/digits/images.npy")[2]
    np.save(path, images)
    edit_statement(path.with_name("manifest.json"), lambda _: None)


def edit_pairs(tree: Tree, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Forge mined pairs; the manifest and its metrics agree with them."""
    path = tree.results / "pairs/digits.near/pairs.npy"
    pairs = change(np.load(path))
    np.save(path, pairs)
    images = len(np.load(path.with_name("features.npy")))
    metrics = {
        "pairs/count": len(pairs),
        "pairs/anchors_share": len(np.unique([pairs["left"], pairs["right"]])) / images,
        "pairs/mean_cosine": float(pairs["cosine"].mean()),
    }

    def forge(predicate: dict[str, Any]) -> None:
        predicate["metrics"] = metrics
        for key, value in metrics.items():
            edit_mlflow(tree, key, value, predicate["mlflow_run_id"])

    edit_statement(path.with_name("manifest.json"), forge)


@fault("A22", "A24", "A40", within="paired")
def pair_added(tree: Tree) -> None:
    """The first two images that are no pair, with their true cosine and in their place."""

    def add(pairs: np.ndarray) -> np.ndarray:
        features = np.load(tree.results / "pairs/digits.near/features.npy").astype(np.float64)
        units = features / np.linalg.norm(features, axis=1, keepdims=True)
        held = set(zip(pairs["left"].tolist(), pairs["right"].tolist(), strict=True))
        left, right = next(
            (i, j)
            for i in range(len(units))
            for j in range(i + 1, len(units))
            if (i, j) not in held
        )
        more = np.array([(left, right, units[left] @ units[right])], pairs.dtype)
        return np.sort(np.concatenate([pairs, more]), order=["left", "right"])

    edit_pairs(tree, add)


@fault("A22", "A24", "A40", within="paired")
def pair_removed(tree: Tree) -> None:
    edit_pairs(tree, lambda pairs: pairs[1:])


@fault("A22", "A24", "A40", within="paired")
def pair_doubled(tree: Tree) -> None:
    edit_pairs(tree, lambda pairs: np.concatenate([pairs[:1], pairs]))


@fault("A22", "A24", "A40", within="paired")
def cosine_of_pair_changed(tree: Tree) -> None:
    def change(pairs: np.ndarray) -> np.ndarray:
        pairs["cosine"][0] -= 0.001
        return pairs

    edit_pairs(tree, change)


@fault("A22", "A24", "A40", within="paired")
def pair_turned_round(tree: Tree) -> None:
    def change(pairs: np.ndarray) -> np.ndarray:
        pairs["left"][0], pairs["right"][0] = pairs["right"][0], pairs["left"][0]
        return pairs

    edit_pairs(tree, change)


@fault("A22", "A40", within="paired")
def pairs_of_another_split(tree: Tree) -> None:
    manifest = tree.results / "pairs/digits.near/manifest.json"
    edit_statement(manifest, lambda p: p["facts"]["dataset"].update(split="test"))


@fault("A22", "A40", within="paired")
def pairs_of_another_judge(tree: Tree) -> None:
    manifest = tree.results / "pairs/digits.near/manifest.json"
    edit_statement(manifest, lambda p: p["facts"].update(run=RUN))


@fault("A22", "A40", within="paired")
def labels_in_pairs_claimed(tree: Tree) -> None:
    """The encoder that judged them saw no label; its manifest says so."""
    manifest = tree.results / "pairs/digits.near/manifest.json"
    edit_statement(manifest, lambda p: p["facts"].update(label_conditioned=True))


@fault("A20", "A22", "A40", within="paired")
def fewer_pairs_reported(tree: Tree) -> None:
    manifest = tree.results / "pairs/digits.near/manifest.json"
    edit_statement(manifest, lambda p: p["metrics"].update({"pairs/count": 1}))


@fault("A02", "A40", within="paired")
def features_of_pairs_edited(tree: Tree) -> None:
    path = tree.results / "pairs/digits.near/features.npy"
    features = np.load(path)
    features[0] = -features[0]
    stream = io.BytesIO()
    np.save(stream, features)
    keep_time(path, stream.getvalue())


@fault("A13", "A16", "A22")
def same_initial_weights(tree: Tree) -> None:
    other = RUN.replace("s1", "s0")
    twin = json.loads((tree.results / "runs" / other / "manifest.json").read_text())
    init = twin["predicate"]["facts"]["init_sha256"]

    def change(predicate: dict[str, Any]) -> None:
        predicate["facts"]["init_sha256"] = init

    edit_statement(tree.run("runs", "manifest.json"), change)


@fault("A13", "A22")
def initial_weights_not_recorded(tree: Tree) -> None:
    edit_statement(tree.run("runs", "manifest.json"), lambda p: p["facts"].pop("init_sha256"))


@fault("A41", "A22")
def labels_denied(tree: Tree) -> None:
    """A run that was given labels is the reason for the mark; the record may not say otherwise."""
    given = {"method": True, "positives": False}
    edit_statement(
        tree.run("runs", "manifest.json"), lambda p: p["facts"].update(uses_labels=given)
    )


@fault("A41", "A22")
def labels_not_recorded(tree: Tree) -> None:
    edit_statement(tree.run("runs", "manifest.json"), lambda p: p["facts"].pop("label_free"))


@fault("A41", "A22")
def recipe_of_another_family(tree: Tree) -> None:
    edit_statement(
        tree.run("runs", "manifest.json"), lambda p: p["facts"].update(recipe_family="solo")
    )


@fault("A46", "A22")
def fast_run_called_exact(tree: Tree) -> None:
    switches = {"precision": "bf16", "compile": True, "fused": True, "views": "device"}
    edit_statement(
        tree.run("runs", "manifest.json"),
        lambda p: p["facts"].update(execution={**switches, "deterministic": False}),
    )


@fault("A46", "A22")
def processes_not_recorded(tree: Tree) -> None:
    edit_statement(tree.run("runs", "manifest.json"), lambda p: p["facts"].pop("processes"))


@fault("A46", "A22")
def batch_norm_of_another_recipe(tree: Tree) -> None:
    edit_statement(
        tree.run("runs", "manifest.json"), lambda p: p["facts"].update(batch_norm="per_device")
    )


def _rewrite_history(tree: Tree, change: Callable[[list[str]], list[str]]) -> None:
    path = tree.run("runs", "history.jsonl")
    path.write_text("\n".join(change(path.read_text().split("\n"))))
    edit_statement(tree.run("runs", "manifest.json"), lambda _: None)


@fault("A14", "A20", "A22", "A24")
def step_missing(tree: Tree) -> None:
    _rewrite_history(tree, lambda lines: lines[:2] + lines[3:])


@fault("A15", "A22", "A24")
def loss_does_not_add_up(tree: Tree) -> None:
    def change(lines: list[str]) -> list[str]:
        record = json.loads(lines[1])
        return [lines[0], canonical_json({**record, "loss": record["loss"] - 0.5}), *lines[2:]]

    _rewrite_history(tree, change)


def _edit_records(tree: Tree, change: Callable[[dict[str, Any]], None]) -> None:
    def edit(lines: list[str]) -> list[str]:
        records = [json.loads(line) for line in lines[:-1]]
        for record in records:
            change(record)
        return [*map(canonical_json, records), ""]

    _rewrite_history(tree, edit)


@fault("A15", "A20", "A22", "A24")
def alignment_not_logged(tree: Tree) -> None:
    """As if the positives had pulled nothing; the loss is made to agree."""

    def change(record: dict[str, Any]) -> None:
        record["loss"] -= record.pop("alignment")

    _edit_records(tree, change)


@fault("A15", "A20", "A22", "A24")
def rate_of_another_schedule(tree: Tree) -> None:
    _edit_records(tree, lambda record: record.update(lr=0.05))


@fault("A15", "A20", "A22", "A24")
def term_not_logged(tree: Tree) -> None:
    def change(record: dict[str, Any]) -> None:
        record["loss"] -= record.pop("info_nce")

    _edit_records(tree, change)


@fault("A14", "A15", "A20", "A22", "A24")
def record_is_no_record(tree: Tree) -> None:
    _rewrite_history(tree, lambda lines: ['["step", 0]', *lines[1:]])


@fault("A15", "A22")
def loss_terms_not_recorded(tree: Tree) -> None:
    edit_statement(tree.run("runs", "manifest.json"), lambda p: p["facts"].pop("terms"))


@fault("A19", "A21", "A22")
def best_k_as_headline(tree: Tree) -> None:
    def change(predicate: dict[str, Any]) -> None:
        predicate["facts"]["results"][2]["selected_on"] = "test"

    edit_statement(tree.run("probes", "manifest.json"), change)


@fault("A19", "A21", "A22")
def tuned_rate_as_headline(tree: Tree) -> None:
    def change(predicate: dict[str, Any]) -> None:
        predicate["facts"]["results"][0]["selection"]["learning_rate"] = 2.0

    edit_statement(tree.run("probes", "manifest.json"), change)


@fault("A19", "A21", "A22")
def rate_chosen_on_test(tree: Tree) -> None:
    def change(predicate: dict[str, Any]) -> None:
        predicate["facts"]["results"][1]["selected_on"] = "test"

    edit_statement(tree.run("probes", "manifest.json"), change)


@fault("A19", "A21", "A22")
def earlier_epoch_reported(tree: Tree) -> None:
    def change(predicate: dict[str, Any]) -> None:
        predicate["facts"]["results"][0]["epoch"] = 1

    edit_statement(tree.run("probes", "manifest.json"), change)


@fault("A19", "A22")
def another_metric_reported(tree: Tree) -> None:
    """Mean per class presented as accuracy over images."""
    manifest = tree.run("transfer", "manifest.json")
    path = tree.run("transfer", "transfer.json")
    document = json.loads(path.read_text())
    document["results"][0]["metric"] = "top1"
    path.write_text(canonical_json(document))
    edit_statement(manifest, lambda p: p["facts"]["results"][0].update(metric="top1"))


@fault("A22", "A24")
def encoder_of_another_run(tree: Tree) -> None:
    other = RUN.replace("s1", "s2")

    def change(predicate: dict[str, Any]) -> None:
        donor = json.loads((tree.results / "probes" / other / "manifest.json").read_text())
        predicate["resolvedDependencies"] = donor["predicate"]["resolvedDependencies"]

    edit_statement(tree.run("probes", "manifest.json"), change)


@fault("A16", "A22", "A24", "A29")
def encoder_trained_again(tree: Tree) -> None:
    path = tree.run("runs", "encoder.safetensors")
    path.write_bytes(b"other weights")
    edit_statement(tree.run("runs", "manifest.json"), lambda _: None)


@fault("A22", "A24", "A26")
def cell_counts_another_seed(tree: Tree) -> None:
    path = tree.reports / "tables/transfer.csv"
    path.write_text(path.read_text().replace(",3,3,", ",2,2,", 1))
    edit_statement(tree.reports / "tables/transfer.manifest.json", lambda _: None)
