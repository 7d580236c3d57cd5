"""Weights of the tiny tree's runs: one layer, and what a method remembers beside it."""

import hashlib
import math

import numpy as np
from safetensors.numpy import save
from tree_results import stream

from clsp.config.grid import Run
from clsp.runtime.canonical import sha256_json

Tensors = dict[str, np.ndarray]


def tensors_sha256(tensors: Tensors) -> str:
    """As clsp.runtime.checkpoint has it, without torch."""
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode() + array.tobytes())
    return digest.hexdigest()


def has_teacher(run: Run) -> bool:
    """Whether the method keeps a moving average and a queue."""
    return "momentum_start" in run.spec.method_options


def momentum(run: Run, step: int, steps: int) -> float:
    """Decay of the average in a step."""
    options = run.spec.method_options
    start, end = options["momentum_start"], options["momentum_end"]
    return end - (end - start) * (1 + math.cos(math.pi * max(step - 1, 0) / steps)) / 2


def _state(run: Run, step: int) -> Tensors:
    """Everything that a method remembers after some steps."""
    start = stream("weights", run.slug).normal(size=(3, 2)).astype(np.float32)
    way = stream("way", run.slug).normal(size=(3, 2)).astype(np.float32)
    state = {"encoder.conv.weight": start + np.float32(0.1 * step) * way}
    if has_teacher(run):
        state["teacher.network.0.conv.weight"] = start + np.float32(0.03 * step) * way
        state["teacher.updates"] = np.array(step)
        rows = run.spec.method_options["queue"]
        state["queue.anchors"] = np.zeros(rows, np.int64)
        state["queue.pointer"] = np.array(step * run.spec.recipe.batch_size % rows)
    return state


def checkpoints(run: Run, per_epoch: int) -> tuple[dict[str, bytes], dict[str, str]]:
    """Files with weights, and digests of the checkpoints."""
    epochs = run.spec.recipe.epochs
    files, digests = {}, {}
    for name, epoch in (("start", 0), ("middle", max(1, epochs // 2)), ("final", epochs)):
        state = _state(run, epoch * per_epoch)
        about = {"step": str(epoch * per_epoch), "epoch": str(epoch)}
        about["spec_sha256"] = sha256_json(run.spec.canonical())
        files[f"checkpoints/{name}.safetensors"] = save(state, about)
        digests[name] = tensors_sha256(state)
        files["encoder.safetensors"] = save({"conv.weight": state["encoder.conv.weight"]})
    return files, digests
