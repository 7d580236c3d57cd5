"""Faults in trained denoisers."""

from collections.abc import Callable
from typing import Any

from injecting import Tree, edit_statement, fault
from safetensors.numpy import load_file, save_file

from clsp.audit.checks.a43_denoisers import WEIGHTS, tensors_digest
from clsp.runtime.canonical import canonical_json
from clsp.runtime.history import read_history


def _edit(tree: Tree, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    edit_statement(tree.results / "denoisers/digits/manifest.json", change)


def _edit_log(tree: Tree, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the step log; manifest agrees, but whatever used the denoiser knows the old one."""
    path = tree.results / "denoisers/digits/history.jsonl"
    records = read_history(path)
    change(records)
    path.write_text("".join(canonical_json(record) + "\n" for record in records))
    _edit(tree)


@fault("A22", "A43")
def denoiser_trained_too_short(tree: Tree) -> None:
    _edit(tree, lambda p: p["counters"].update(steps=2))


@fault("A22", "A43")
def average_not_updated_in_every_step(tree: Tree) -> None:
    _edit(tree, lambda p: p["counters"].update(ema_updates=1))


@fault("A22", "A24", "A43")
def step_of_denoiser_not_logged(tree: Tree) -> None:
    _edit_log(tree, lambda records: records.__delitem__(1))


@fault("A20", "A22", "A24", "A43")
def last_step_of_denoiser_not_logged(tree: Tree) -> None:
    _edit_log(tree, lambda records: records.pop())


@fault("A22", "A24", "A43")
def denoiser_warmed_up_otherwise(tree: Tree) -> None:
    _edit_log(tree, lambda records: records[0].update(lr=0.0))


@fault("A20", "A22", "A24", "A43")
def loss_of_denoiser_missing(tree: Tree) -> None:
    _edit_log(tree, lambda records: records[2].pop("loss"))


@fault("A22", "A43")
def labels_behind_denoiser_claimed(tree: Tree) -> None:
    _edit(tree, lambda p: p["facts"].update(label_conditioned=True))


@fault("A22", "A24", "A43")
def network_with_labels_in_unconditional_denoiser(tree: Tree) -> None:
    path = tree.results / "denoisers/digits/unet/config.json"
    path.write_text('{"num_class_embeds":4}\n')
    _edit(tree)


@fault("A11", "A22", "A24", "A43")
def raw_weights_sampled_instead_of_average(tree: Tree) -> None:
    """The last iterate lies where the moving average should; every record agrees."""
    folder = tree.results / "denoisers/digits"
    source = folder / "raw" / WEIGHTS
    (folder / "unet" / WEIGHTS).write_bytes(source.read_bytes())
    _edit(tree, lambda p: p["facts"]["tensors_sha256"].update(ema=tensors_digest(source)))


@fault("A22", "A24", "A43")
def tensor_of_denoiser_edited(tree: Tree) -> None:
    path = tree.results / "denoisers/digits/unet" / WEIGHTS
    tensors = load_file(path)
    tensors["w"][0] += 1
    save_file(tensors, path)
    _edit(tree)
