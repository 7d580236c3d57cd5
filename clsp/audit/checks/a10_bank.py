"""A bank holds every candidate of every anchor once; none is blank, a copy or its own anchor."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from clsp.audit.arrays import load_npy
from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.plan import bank_job, banks_needed, prepare_job
from clsp.data.prepared import Images, open_prepared, window
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact

ID = "A10"
SEVERITY = BLOCKING
LEVEL = "L2"


def _coverage(index: np.ndarray, shape: tuple[int, ...], anchors: int, wanted: int) -> str:
    """What is wrong with the index map of a bank (N, K), or nothing."""
    count, candidates = shape[:2]
    if (count, candidates) != (anchors, wanted):
        return f"{count} x {candidates} images for {anchors} anchors x {wanted} candidates"
    flat = index.reshape(-1)
    if not {"anchor", "candidate"} <= set(flat.dtype.names or ()):
        return "an index without the fields anchor and candidate"
    pairs = np.stack([flat["anchor"], flat["candidate"]], axis=1).astype(np.int64)
    grid = np.stack(
        [np.repeat(np.arange(count), candidates), np.tile(np.arange(candidates), count)], axis=1
    )
    if np.array_equal(pairs, grid):
        return ""
    seen, times = np.unique(pairs, axis=0, return_counts=True)
    doubled = seen[times > 1][:1].tolist()
    present = set(map(tuple, seen.tolist()))
    absent = next((p for p in map(tuple, grid.tolist()) if p not in present), None)
    return f"(anchor, candidate) missing {absent}, doubled {doubled}, {len(pairs)} entries"


def _images(images: np.ndarray, anchors: Images, index: np.ndarray) -> Iterator[str]:
    """What is wrong with single images: (N, K, H, W, 3) against anchors (N, H, W, 3)."""
    hashed = index.reshape(images.shape[:2])["sha64"] if "sha64" in index.dtype.names else None
    for row in range(len(images)):
        drawn = np.asarray(images[row])  # (K, H, W, 3)
        flat = drawn.reshape(len(drawn), -1)
        if (blank := np.flatnonzero((drawn == drawn[:, :1, :1]).all(axis=(1, 2, 3)))).size:
            yield f"anchor {row} candidate {blank[0]} is of one colour"
        same = (flat == np.asarray(anchors[row]).reshape(1, -1)).all(axis=1)
        if same.any():
            yield f"anchor {row} candidate {np.flatnonzero(same)[0]} is its anchor"
        digests = [hashlib.sha256(image.tobytes()).digest()[:8] for image in flat]
        if len(set(digests)) < len(digests):
            yield f"anchor {row} has equal candidates"
        if hashed is not None:
            now = [int.from_bytes(digest, "big") for digest in digests]
            if now != hashed[row].tolist():
                yield f"anchor {row} has images that the index does not name"


def _problems(bank: Artefact, data: Artefact, spec: dict[str, Any]) -> list[str]:
    try:
        images = load_npy(bank.folder / "images.npy", mmap_mode="r")
        index = load_npy(bank.folder / "index.npy")
        prepared = open_prepared(data)
        start, stop = prepared.card["splits"]["train"]
        real = window(prepared.images, start, stop)  # encoded ones are decoded one by one
    except (OSError, ValueError, EOFError, KeyError, TypeError, ClspError) as error:
        return [f"cannot be read: {error}"]
    if images.ndim != 5 or images.dtype != np.uint8 or images.shape[2:] != real.shape[1:]:
        return [f"images are {images.dtype} {images.shape}, anchors {real.shape}"]
    if wrong := _coverage(index, images.shape, stop - start, spec["candidates"]):
        return [wrong]
    found = list(_images(images, real, index))
    more = [f"and {len(found) - 5} more"] if len(found) > 5 else []
    return found[:5] + more


def check(suite: Suite) -> list[Finding]:
    """Look at the index map and at every image of every bank."""
    findings = []
    for name in banks_needed(suite.params):
        job = bank_job(suite.params, name)
        source = prepare_job(suite.params, suite.params.banks[name].dataset)
        bank = suite.records.current(job.stage, job.name, job.spec)
        data = suite.records.current(source.stage, source.name, source.spec)
        if bank is None or data is None:
            continue  # A01 and A05 report it
        findings += [
            Finding(
                ID,
                BLOCKING,
                str(bank.folder / "images.npy"),
                "each candidate once, none blank, a copy or its anchor",
                problem,
                "the bank is not what a generator draws",
                name,
                suite.dependents(job.stage, name),
            )
            for problem in _problems(bank, data, job.spec)
        ]
    return findings
