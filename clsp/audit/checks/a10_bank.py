"""A bank holds every candidate of every anchor once; none is blank, a copy or a real image.

Its images are those of its shards, one behind the other, and the index says where each came from.
"""

import contextlib
import hashlib
from collections.abc import Collection, Iterator

import numpy as np

from clsp.audit.arrays import load_npy
from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.items import read_items
from clsp.audit.mapped import release, rows_of
from clsp.audit.suite import Suite
from clsp.config.plan import bank_job, banks_needed, datasets_needed, prepare_job, shard_job
from clsp.data.prepared import Images, open_prepared, window
from clsp.report.records import shard_of
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact

ID = "A10"
SEVERITY = BLOCKING
LEVEL = "L2"
DIGITS = 16  # of an image's digest: what the index holds of it
LARGEST = 255.0**2  # of a squared difference, to that of pixels in [0, 1]
ROUNDED = 1e-5  # differences are summed up in float32 when a bank is gathered
STEP = 256  # anchors that are compared at a time


def _coverage(index: np.ndarray, shape: tuple[int, ...], anchors: int, wanted: int) -> str:
    """What is wrong with the index map of a bank (N, K), or nothing."""
    count, candidates = shape[:2]
    if (count, candidates) != (anchors, wanted):
        return f"{count} x {candidates} images for {anchors} anchors x {wanted} candidates"
    flat = index.reshape(-1)
    if absent := {"anchor", "candidate", "shard", "row", "sha64"} - set(flat.dtype.names or ()):
        return f"an index without the field {min(absent)}"
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


def _single(drawn: np.ndarray, anchor: np.ndarray, digests: list[str]) -> Iterator[str]:
    """What is wrong with the candidates (K, H, W, 3) of one anchor (H, W, 3)."""
    flat = drawn.reshape(len(drawn), -1)
    if (blank := np.flatnonzero((drawn == drawn[:, :1, :1]).all(axis=(1, 2, 3)))).size:
        yield f"candidate {blank[0]} is of one colour"
    same = (flat == anchor.reshape(1, -1)).all(axis=1)
    if same.any():
        yield f"candidate {np.flatnonzero(same)[0]} is its anchor"
    if len(set(digests)) < len(digests):
        yield "has equal candidates"


def _images(
    images: np.ndarray, anchors: Images, index: np.ndarray, real: Collection[str] = frozenset()
) -> Iterator[str]:
    """What is wrong with images (N, K, H, W, 3) of anchors (N, H, W, 3).

    Args:
        images: Of the bank.
        anchors: Training images.
        index: Of the bank.
        real: Digests of all images of the dataset, cut to DIGITS.
    """
    named = "sha64" in (index.dtype.names or ())
    hashed = index.reshape(images.shape[:2])["sha64"] if named else None
    seen: dict[str, int] = {}
    for row in rows_of(images, anchors):
        drawn, anchor = np.asarray(images[row]), np.asarray(anchors[row])  # (K, H, W, 3)
        digests = [hashlib.sha256(image.tobytes()).hexdigest()[:DIGITS] for image in drawn]
        found = list(_single(drawn, anchor, digests))
        yield from (f"anchor {row} {problem}" for problem in found)
        if not found:  # else it has been told
            yield from (f"anchor {row} has a real image" for d in digests if d in real)
            others = (seen[d] for d in digests if d in seen)
            yield from (f"anchor {row} has a candidate of anchor {other}" for other in others)
        if named and [int(digest, 16) for digest in digests] != hashed[row].tolist():
            yield f"anchor {row} has images that the index does not name"
        seen.update(dict.fromkeys(digests, row))


def _shards(suite: Suite, name: str, images: np.ndarray, index: np.ndarray) -> Iterator[str]:
    """Where the bank is not its shards, one behind the other, as the index says."""
    made = {int(shard_of(a).split("-")[0]): a for a in suite.made(shard_job(suite.params, name))}
    table, first = index.reshape(images.shape[:2]), 0
    for number, shard in sorted(made.items()):
        part = load_npy(shard.folder / f"{shard_of(shard)}.npy", mmap_mode="r")
        rows = slice(first, first + len(part))
        if part.shape[1:] != images.shape[1:] or rows.stop > len(images):
            yield f"shard {number} has images {part.shape}"
            return
        for start in range(0, len(part), STEP):
            stop = min(start + STEP, len(part))
            if not np.array_equal(part[start:stop], images[first + start : first + stop]):
                yield f"anchors from {first + start} on are not those of shard {number}"
                break
            release(part, images)
        places = table[rows]
        told = (places["shard"] == number) & (places["row"] == np.arange(len(part))[:, None])
        if not told.all():
            yield f"the index does not say that anchors from {first} on are in shard {number}"
        first = rows.stop
    if first != len(images):
        yield f"the shards hold {first} anchors of {len(images)}"


def _listed(suite: Suite, side: int) -> set[str]:
    """Digests of all images of the bank's size; of a list that cannot be read A08 tells."""
    found: set[str] = set()
    for name in datasets_needed(suite.params):
        job, dataset = prepare_job(suite.params, name), suite.dataset(name)
        data = suite.records.current(job.stage, job.name, job.spec)
        if data is None or dataset is None or dataset[1].get("size") != side:
            continue
        with contextlib.suppress(OSError, ValueError):
            found |= {digest[:DIGITS] for digest in read_items(data.folder / "items.csv").stored}
    return found


def _distance(bank: Artefact, images: np.ndarray, anchors: Images) -> Iterator[str]:
    """Where the recorded squared difference of candidates from their anchors is not theirs."""
    total = 0.0
    for row in range(len(images)):
        gap = images[row].astype(np.float64) - np.asarray(anchors[row])
        total += float((gap**2).mean()) / LARGEST
    told = bank.metrics.get("bank/own_mse")
    if told is None or abs(told - total / len(images)) > ROUNDED * max(1.0, abs(told)):
        yield f"bank/own_mse is {told}, but its images give {total / len(images):.8g}"


def _open(bank: Artefact, data: Artefact) -> tuple[np.ndarray, np.ndarray, Images]:
    """Images and index of a bank, and its anchors."""
    prepared = open_prepared(data)
    real = window(prepared.images, *prepared.card["splits"]["train"])  # decoded one by one
    index = load_npy(bank.folder / "index.npy")
    return load_npy(bank.folder / "images.npy", mmap_mode="r"), index, real


def _problems(suite: Suite, name: str, bank: Artefact, data: Artefact) -> list[str]:
    try:
        images, index, real = _open(bank, data)
        if images.ndim != 5 or images.dtype != np.uint8 or images.shape[2:] != real.shape[1:]:
            return [f"images are {images.dtype} {images.shape}, anchors {real.shape}"]
        if wrong := _coverage(index, images.shape, len(real), bank.spec["candidates"]):
            return [wrong]
        found = list(_images(images, real, index, _listed(suite, images.shape[3])))
        found += _shards(suite, name, images, index)
        found += _distance(bank, images, real)
    except (OSError, ValueError, EOFError, KeyError, TypeError, ClspError) as error:
        return [f"cannot be read: {error}"]
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
        if bank is None or data is None or suite.dataset(source.name) is None:
            continue  # A01, A05 and A08 report it
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
            for problem in _problems(suite, name, bank, data)
        ]
    return findings
