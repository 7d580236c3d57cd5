"""Stage gather-bank: join the shards of a bank, check every image and index it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clsp.config.schema import BankSpec
from clsp.data.bank import INDEX, identity, map_array, other_anchors
from clsp.data.prepared import Images, Prepared
from clsp.runtime.errors import DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.progress import Progress
from clsp.runtime.stage import Input, Inputs, Outcome, Output
from clsp.synthesis.parts import anchors_of, parse_shard
from clsp.synthesis.storage import ArrayFile, open_anchors, release

BLOCK = 1 << 22  # bytes of candidates looked at together


@dataclass(frozen=True)
class Shard:
    """One shard's images and the anchors they belong to."""

    number: int
    name: str
    start: int
    images: np.ndarray  # uint8 (stop - start, K, H, W, 3), memory-mapped


def _refuse(shard: Artefact, key: str, found: object, expected: object) -> None:
    if found != expected:
        raise DataError(f"{shard.manifest}: its {key} is {found}, expected {expected}")


def _open_shard(shard: Artefact, count: int, prepared: Prepared) -> Shard:
    """Map one shard, after checking that it covers the anchors that its name promises."""
    name = shard.predicate["externalParameters"]["arguments"]["shard"]
    number, of = parse_shard(name)
    _refuse(shard, "number of shards", of, count)
    start, stop = anchors_of(name, len(prepared.split("train")))
    facts = shard.predicate["facts"]
    _refuse(shard, "range of anchors", facts["anchors"], [start, stop])
    images = map_array(shard.folder / next(iter(shard.subjects)), np.uint8, 5)
    expected = (stop - start, facts["candidates"], *prepared.images.shape[1:])
    _refuse(shard, "shape", images.shape, expected)
    return Shard(number, name, start, images)


def open_shards(spec: BankSpec, shards: list[Artefact], prepared: Prepared) -> list[Shard]:
    """The shards in order, after checking that they are exactly the bank's.

    Raises:
        DataError: If a shard is missing, given twice, or of another bank, denoiser or dataset.
    """
    if not shards:
        raise DataError("--shards: none given")
    first = shards[0].predicate["facts"]
    for shard in shards:
        facts = shard.predicate["facts"]
        _refuse(shard, "stage", shard.stage, "generate-shard")
        _refuse(shard, "spec", shard.spec, spec.canonical())
        _refuse(shard, "dataset", facts["dataset"], identity(prepared))
        _refuse(shard, "number of candidates", facts["candidates"], spec.candidates)
        for key in ("denoiser", "sampler", "label_conditioned"):
            _refuse(shard, key, facts[key], first[key])
    names = [shard.predicate["externalParameters"]["arguments"]["shard"] for shard in shards]
    count = parse_shard(names[0])[1]
    wanted = [f"{number}-of-{count}" for number in range(1, count + 1)]
    absent, repeated = set(wanted) - set(names), {n for n in names if names.count(n) > 1}
    if absent or repeated:
        raise DataError(
            f"--shards: incomplete: missing {', '.join(sorted(absent)) or 'none'}; "
            f"given twice {', '.join(sorted(repeated)) or 'none'}"
        )
    opened = [_open_shard(shard, count, prepared) for shard in shards]
    return sorted(opened, key=lambda shard: shard.number)


def _blocks(shards: list[Shard]) -> Iterator[tuple[Shard, int, np.ndarray]]:
    """Runs of anchors, small enough to hold: the shard, its first row, images (n, K, H, W, 3)."""
    for shard in shards:
        step = max(1, BLOCK // shard.images[0].nbytes)
        for row in range(0, len(shard.images), step):
            block = np.array(shard.images[row : row + step])
            release(shard.images)
            yield shard, row, block


def _sha64(image: np.ndarray) -> int:
    return int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big")


def index_images(shard: Shard, row: int, block: np.ndarray) -> np.ndarray:
    """Index entries (n, K) of a run of anchors, see clsp.data.bank.INDEX."""
    table = np.zeros(block.shape[:2], INDEX)
    rows = row + np.arange(len(block))
    table["anchor"] = (shard.start + rows)[:, None]
    table["candidate"] = np.arange(block.shape[1])
    table["shard"] = shard.number
    table["row"] = rows[:, None]
    table["sha64"] = [[_sha64(image) for image in candidates] for candidates in block]
    return table


def _refuse_images(bad: np.ndarray, first: int, what: str) -> None:
    """Stop at the first anchor and candidate for which bad (n, K) is true."""
    if bad.any():
        row, candidate = np.argwhere(bad)[0]
        raise DataError(f"candidate {candidate} of anchor {first + row} {what}")


def check_images(block: np.ndarray, hashes: np.ndarray, anchors: np.ndarray, first: int) -> None:
    """Refuse candidates that no generator draws: a hole in the bank, or a copy.

    Args:
        block: Candidates, uint8 (n, K, H, W, 3).
        hashes: Of the candidates, (n, K).
        anchors: Their anchors, uint8 (n, H, W, 3).
        first: Number of the first anchor, for messages.

    Raises:
        DataError: If an image is of one colour, equals its anchor, or equals another candidate.
    """
    blank = (block == block[:, :, :1, :1]).all(axis=(2, 3, 4))  # each channel constant
    flat = block.reshape(*block.shape[:2], -1)
    own = anchors.reshape(len(anchors), 1, -1)
    _refuse_images(blank, first, "is of one colour, as if never drawn")
    _refuse_images((flat == own).all(axis=2), first, "is a copy of its anchor")
    alike = hashes[:, :, None] == hashes[:, None, :]
    copies = np.triu(alike, k=1).any(axis=1)  # equal to a candidate with a lower number
    _refuse_images(copies, first, "is a copy of another candidate")


def distance(block: np.ndarray, images: np.ndarray) -> float:
    """Sum over candidates of the mean squared difference from an image, pixels scaled to [0, 1].

    Args:
        block: Candidates, uint8 (n, K, H, W, 3).
        images: What each anchor's candidates are compared with, uint8 (n, H, W, 3).
    """
    difference = (block.astype(np.float32) - images[:, None]) / np.float32(255)
    return float((difference**2).mean(axis=(2, 3, 4), dtype=np.float64).sum())


def _join(
    shards: list[Shard], anchors: Images, joined: ArrayFile, index: ArrayFile, seed: int
) -> dict[str, float]:
    """Write images and index, a run of anchors at a time; sums of the squared differences."""
    others, sums = other_anchors(seed, len(anchors)), {"own": 0.0, "random": 0.0}
    with Progress("gather bank", len(anchors), "anchor") as progress:
        for shard, row, block in _blocks(shards):
            rows = np.arange(shard.start + row, shard.start + row + len(block))
            own, random = anchors[rows], anchors[others[rows]]
            release(anchors)
            table = index_images(shard, row, block)
            check_images(block, table["sha64"], own, rows[0])
            joined.write(rows[0], block)
            index.write(rows[0] * block.shape[1], table.reshape(-1))
            sums["own"] += distance(block, own)
            sums["random"] += distance(block, random)
            progress.step(len(block))
    joined.flush()
    index.flush()
    return sums


def gather_bank(
    spec: BankSpec, shards: Inputs, dataset: Input, images: Output, index: Output
) -> Outcome:
    """Join the shards of a bank into one array with its index, in bounded memory.

    The metrics compare candidates with their own anchor and with a random other one, in mean
    squared difference of pixels scaled to [0, 1]; own must be clearly smaller (methods.md 7, 22).

    Raises:
        DataError: If the shards are not exactly those of this bank and dataset, or an image is
            of one colour, a copy of its anchor, or a copy of another candidate.
    """
    prepared = open_anchors(dataset, labelled=False)
    anchors = prepared.split("train").images
    opened = open_shards(spec, shards, prepared)
    shape = (len(anchors), *opened[0].images.shape[1:])
    count = shape[0] * shape[1]
    with (
        ArrayFile.reserve(images, np.uint8, shape) as joined,
        ArrayFile.reserve(index, INDEX, (count,)) as entries,
    ):
        sums = _join(opened, anchors, joined, entries, spec.seed)
    made = shards[0].predicate["facts"]
    facts = {
        "dataset": {"spec": dataset.spec, **identity(prepared)},
        **{key: made[key] for key in ("denoiser", "sampler", "label_conditioned")},
        "devices": sorted({shard.predicate["facts"]["device"] for shard in shards}),
    }
    metrics = {f"bank/{name}_mse": total / count for name, total in sums.items()}
    return Outcome(metrics, {"anchors": len(anchors), "images": count}, facts)
