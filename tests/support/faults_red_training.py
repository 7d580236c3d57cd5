"""Forgeries of training, banks, choices and reports; every record agrees with them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from copying import CHANGES
from faults_red_tools import change_manifest, redraw, rescore, settle
from injecting import RUN, Tree, change_store, edit_arrays, edit_mlflow, edit_statement, fault
from results_tree import TreeBuilder
from safetensors.numpy import save
from tree_weights import tensors_sha256

from clsp.audit.weights import Tensors, read_tensors
from clsp.runtime.canonical import canonical_json, sha256_file
from clsp.runtime.source import ROOT

MOCO = RUN.replace("simclr", "moco")
BANK = "banks/digits.mix"


def _relog(tree: Tree, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change a step log; MLflow, manifests and the report agree."""
    path = tree.run("runs", "history.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    path.write_text("".join(canonical_json(record) + "\n" for record in records))
    manifest = path.with_name("manifest.json")
    last = [r["loss"] for r in records if r["epoch"] == records[-1]["epoch"]]
    loss = {"pretrain/loss": sum(last) / len(last)}
    change_manifest(manifest, lambda p: p["metrics"].update(loss))
    held = json.loads(manifest.read_text())["predicate"]["mlflow_run_id"]
    edit_mlflow(tree, "pretrain/loss", loss["pretrain/loss"], held)
    for record in {r["epoch"]: r for r in records}.values():
        for key, value in record.items():
            query = "update {} set value = ? where key = ? and step = ? and run_uuid = ?"
            for table in ("metrics", "latest_metrics"):
                place = (value, f"history/{key}", record["step"], held)
                change_store(tree, query.format(table), place)
    settle(tree)


@fault("A15")
def epoch_copied(tree: Tree) -> None:
    """The second epoch has the losses of the first, to the last digit."""

    def copy(records: list[dict[str, Any]]) -> None:
        half = len(records) // 2
        for first, second in zip(records[:half], records[half:], strict=True):
            second.update({key: first[key] for key in ("loss", "info_nce", "alignment")})

    _relog(tree, copy)


def _reweigh(
    tree: Tree, name: str, change: Callable[[Tensors], Tensors], run: str = RUN, kind: str = ""
) -> None:
    """Change a checkpoint, and the encoder if it is the last; digests and report agree."""
    path = tree.run("runs", f"checkpoints/{name}.safetensors", run)
    tensors, about = read_tensors(path)
    tensors = change(tensors)
    path.write_bytes(save(tensors, about))
    key = {"start": "init_sha256", "final": "final_sha256"}.get(name)
    if key:
        manifest = tree.run("runs", "manifest.json", run)
        change_manifest(manifest, lambda p: p["facts"].update({key: tensors_sha256(tensors)}))
    if name == "final":
        own = {n[8:]: t for n, t in tensors.items() if n.startswith("encoder.")}
        tree.run("runs", "encoder.safetensors", run).write_bytes(save(own))
    settle(tree, **CHANGES[kind])


@fault("A16")
def middle_checkpoint_is_the_first(tree: Tree) -> None:
    first, _ = read_tensors(tree.run("runs", "checkpoints/start.safetensors"))
    _reweigh(tree, "middle", lambda _: first)


@fault("A16")
def another_network_at_the_end(tree: Tree) -> None:
    _reweigh(tree, "final", lambda _: {"encoder.conv.weight": np.ones((5, 5), np.float32)})


@fault("A16")
def weights_kept_at_half_precision(tree: Tree) -> None:
    _reweigh(tree, "final", lambda t: {n: a.astype(np.float16) for n, a in t.items()})


@fault("A16", within="taught")
def average_not_kept(tree: Tree) -> None:
    def drop(tensors: Tensors) -> Tensors:
        return {n: a for n, a in tensors.items() if not n.startswith("teacher.network")}

    _reweigh(tree, "final", drop, MOCO, "taught")


@fault("A16", within="taught")
def queue_not_kept(tree: Tree) -> None:
    def drop(tensors: Tensors) -> Tensors:
        return {n: a for n, a in tensors.items() if not n.startswith("queue.")}

    _reweigh(tree, "final", drop, MOCO, "taught")


def _rebank(
    tree: Tree, change: Callable[[np.ndarray], None], shards: bool = True, named: bool = True
) -> None:
    """Change the images of a bank; shards, index, manifests and report agree if asked."""
    folder = tree.results / BANK
    images, index = np.load(folder / "images.npy"), np.load(folder / "index.npy")
    change(images)
    np.save(folder / "images.npy", images)
    if named:
        flat = images.reshape(-1, *images.shape[2:])
        digests = [hashlib.sha256(image.tobytes()).digest()[:8] for image in flat]
        index["sha64"] = [int.from_bytes(digest, "big") for digest in digests]
        np.save(folder / "index.npy", index)
    if shards:
        half = len(images) // 2
        np.save(folder / "shards/1-of-2.npy", images[:half])
        np.save(folder / "shards/2-of-2.npy", images[half:])
    settle(tree)


@fault("A10")
def bank_of_other_images_than_its_shards(tree: Tree) -> None:
    _rebank(tree, lambda images: np.subtract(255, images, out=images), shards=False)


@fault("A10")
def candidates_of_one_anchor_under_another(tree: Tree) -> None:
    _rebank(tree, lambda images: images.__setitem__(5, images[4]))


def _real(tree: Tree, dataset: str, row: int) -> np.ndarray:
    return np.load(tree.results / f"data/{dataset}/images.npy")[row]


@fault("A10")
def candidate_is_another_training_image(tree: Tree) -> None:
    _rebank(tree, lambda images: images.__setitem__((5, 0), _real(tree, "digits", 7)))


@fault("A09", "A10")
def candidate_is_a_test_image(tree: Tree) -> None:
    _rebank(tree, lambda images: images.__setitem__((5, 0), _real(tree, "digits", 14)))


@fault("A10")
def candidate_is_a_test_image_of_another_dataset(tree: Tree) -> None:
    """The count of duplicates on record is made to tell of it."""
    _rebank(tree, lambda images: images.__setitem__((5, 0), _real(tree, "target-mini", 14)))
    path = tree.results / "evaluations/duplicates/duplicates.json"
    record = json.loads(path.read_text())
    for pair in record["pairs"]:
        if pair["kind"] == "bank" and pair["tested_on"].startswith("target"):
            pair["duplicates"] = 1
    path.write_text(canonical_json(record))
    settle(tree)


@fault("A10")
def index_of_other_shards(tree: Tree) -> None:
    path = tree.results / BANK / "index.npy"
    index = np.load(path)
    index["shard"] = 3 - index["shard"]
    np.save(path, index)
    settle(tree)


@fault("A10", "A22", "A24")
def index_without_digests(tree: Tree) -> None:
    path = tree.results / BANK / "index.npy"
    index = np.load(path)
    np.save(path, index[["anchor", "candidate", "shard", "row"]].copy())
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A24")
def input_not_recorded(tree: Tree) -> None:
    def drop(predicate: dict[str, Any]) -> None:
        read = predicate["resolvedDependencies"]
        predicate["resolvedDependencies"] = [d for d in read if "index.npy" not in d["uri"]]

    change_manifest(tree.run("runs", "manifest.json"), drop)
    settle(tree)


@fault("A24")
def test_predictions_read_by_training(tree: Tree) -> None:
    uri = f"results/tiny/transfer/{RUN}"
    files = ("transfer.json", "predictions.npz")
    more = [{"name": f"x/{f}", "uri": f"{uri}/{f}", "digest": {"sha256": "0" * 64}} for f in files]
    change_manifest(
        tree.run("runs", "manifest.json", RUN.replace("s1", "s2")),
        lambda p: p["resolvedDependencies"].extend(more),
    )
    settle(tree)


def _choose(tree: Tree, kind: str, place: int, **selection: Any) -> None:
    manifest = tree.run(kind, "manifest.json")
    change_manifest(manifest, lambda p: p["facts"]["results"][place].update(selection=selection))
    rescore(manifest.parent, tree)
    settle(tree)


@fault("A21")
def neighbours_of_another_number(tree: Tree) -> None:
    _choose(tree, "probes", 2, k=1)


@fault("A21")
def best_of_a_number_that_was_not_tried(tree: Tree) -> None:
    _choose(tree, "probes", 3, k=999)


@fault("A21")
def regulariser_off_the_grid(tree: Tree) -> None:
    _choose(tree, "transfer", 0, log10_lambda=7.5)


def _redrawn(tree: Tree, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    edit_arrays(tree.run("few_shot", "predictions.npz"), change)
    settle(tree, **CHANGES["judged"])


@fault("A21", within="judged")
def all_labels_of_a_fraction(tree: Tree) -> None:
    name = "target-mini.fraction=0.5.drawn"
    _redrawn(tree, lambda arrays: arrays.update({name: np.stack([np.arange(12)] * 2)}))


@fault("A21", within="judged")
def lucky_draw_repeated(tree: Tree) -> None:
    """One draw stands for all of them."""
    name = "target-mini.shots=1.drawn"
    _redrawn(tree, lambda arrays: arrays[name].__setitem__(1, arrays[name][0]))


def _with_own(tree: Tree, flag: str, source: str, change: Callable[[str], str]) -> None:
    """Draw the report with a tracked file of the forger's own."""
    path = tree.results.parents[1] / source.rpartition("/")[2]
    path.write_text(change((ROOT / source).read_text(encoding="utf-8")), encoding="utf-8")

    class Forger(TreeBuilder):
        def _run(self, stage: str, function: Any, manifest: str, name: Any, **given: Any) -> None:
            own = {flag: path} if isinstance(given.get(flag), Path) else {}
            super()._run(stage, function, manifest, name, **given | own)

    redraw(tree, Forger)


@fault("A22", "A24")
def page_in_a_frame_of_his_own(tree: Tree) -> None:
    said = "<p>All claims are reproduced.</p></body>"
    _with_own(
        tree, "template", "clsp/report/report.html.jinja", lambda t: t.replace("</body>", said)
    )


@fault("A24")
def published_numbers_lowered(tree: Tree) -> None:
    _with_own(
        tree, "published", "reports/spec/published.yaml", lambda t: t.replace("94.45", "84.45")
    )


@fault("A22", "A24")
def deviation_left_out(tree: Tree) -> None:
    def cut(text: str) -> str:
        return text.rpartition("\n- ")[0] + "\n"

    _with_own(tree, "deviations", "reports/spec/deviations.yaml", cut)


def _redo_page(tree: Tree, figure: str) -> None:
    """Make the page agree with a forged figure, and nothing else."""
    edit_statement(tree.reports / f"figures/{figure}.manifest.json", lambda _: None)

    class Page(TreeBuilder):
        def _run(self, stage: str, *rest: Any, **given: Any) -> None:
            if stage == "render-report":
                super()._run(stage, *rest, **given)

    redraw(tree, Page)


@fault("A22")
def numbers_of_a_figure_edited(tree: Tree) -> None:
    path = tree.reports / "figures/curves.csv"
    lines = path.read_text().split("\n")
    fields = lines[1].split(",")
    lines[1] = ",".join([*fields[:5], "0.125", *fields[6:]])
    path.write_text("\n".join(lines))
    _redo_page(tree, "curves")


@fault("A22")
def caption_of_a_figure_edited(tree: Tree) -> None:
    manifest = tree.reports / "figures/curves.manifest.json"
    edit_statement(manifest, lambda p: p["facts"].update(caption="CLSP is best everywhere."))
    _redo_page(tree, "curves")


@fault("A24", "A50")
def easier_claims_of_his_own(tree: Tree) -> None:
    """Runs, verdicts and report agree on margins that nobody fixed before."""
    claims = tree.results.parents[1] / "claims.yaml"
    text = (ROOT / "reports/spec/claims.yaml").read_text(encoding="utf-8")
    claims.write_text(text.replace("margin: 1.0", "margin: 0.1"), encoding="utf-8")
    digest = sha256_file(claims)
    for path in (tree.results / "runs").glob("*/manifest.json"):
        change_manifest(path, lambda p: p["internalParameters"].update(claims_sha256=digest))
    settle(tree, drawn=False)
    _with_own(
        tree,
        "claims",
        "reports/spec/claims.yaml",
        lambda t: t.replace("margin: 1.0", "margin: 0.1"),
    )


@fault("A15")
def log_of_another_seed(tree: Tree) -> None:
    other = tree.run("runs", "history.jsonl", RUN.replace("s1", "s2")).read_text()

    def take(records: list[dict[str, Any]]) -> None:
        records[:] = [json.loads(line) for line in other.splitlines()]

    _relog(tree, take)


@fault("A15")
def final_loss_misstated(tree: Tree) -> None:
    manifest = tree.run("runs", "manifest.json")
    held = json.loads(manifest.read_text())["predicate"]["mlflow_run_id"]
    change_manifest(manifest, lambda p: p["metrics"].update({"pretrain/loss": 0.001}))
    edit_mlflow(tree, "pretrain/loss", 0.001, held)
    settle(tree)


@fault("A16")
def encoder_of_zeros(tree: Tree) -> None:
    _reweigh(tree, "final", lambda tensors: {n: a * 0 for n, a in tensors.items()})


@fault("A16", within="taught")
def average_is_the_network_but_for_rounding(tree: Tree) -> None:
    def near(tensors: Tensors) -> Tensors:
        own = tensors["encoder.conv.weight"] * np.float32(1 + 1e-6)
        return {**tensors, "teacher.network.0.conv.weight": own}

    _reweigh(tree, "final", near, MOCO, "taught")


@fault("A10")
def distance_from_anchors_misstated(tree: Tree) -> None:
    manifest = tree.results / BANK / "manifest.json"
    held = json.loads(manifest.read_text())["predicate"]["mlflow_run_id"]
    change_manifest(manifest, lambda p: p["metrics"].update({"bank/own_mse": 0.001}))
    edit_mlflow(tree, "bank/own_mse", 0.001, held)
    settle(tree)


@fault("A41")
def sampler_of_other_settings(tree: Tree) -> None:
    manifest = tree.results / BANK / "manifest.json"
    change_manifest(manifest, lambda p: p["facts"]["sampler"].update(eta=0.9))
    settle(tree)


@fault("A21")
def features_of_an_earlier_epoch(tree: Tree) -> None:
    change_manifest(tree.run("features", "manifest.json"), lambda p: p["facts"].update(epoch=1))
    settle(tree)
