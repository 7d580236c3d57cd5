"""Mined pairs are the mutual nearest neighbours at or above the threshold, all of them, no others.

They are mined again from the stored features. Where two cosines, or a cosine and the threshold, lie
within BAND of each other, rounding may decide either way. The record names the run that judged
them, and says that labels had a part in them exactly if they had one in that run.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.plan import pairs_job, pairs_needed, prepare_job, pretrain_job
from clsp.config.schema import PairsSpec
from clsp.runtime.canonical import read_json
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact

ID = "A40"
SEVERITY = BLOCKING
LEVEL = "L2"
BAND = 1e-5  # of a cosine
BLOCK = 1 << 22  # cosines held at a time, 32 MiB

Problem = tuple[str, str]  # expected, found


@dataclass(frozen=True)
class Mined:
    """What the features say.

    Attributes:
        units: Features of length 1, float64 (N, F).
        least: Cosine of each image's last wanted neighbour, (N,).
        certain: Codes left * N + right of pairs that no rounding could leave out, int64 (C,).
    """

    units: np.ndarray
    least: np.ndarray
    certain: np.ndarray


def _cosines(units: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    step = max(1, BLOCK // units.shape[1])
    parts = [
        np.einsum("pf,pf->p", units[left[at : at + step]], units[right[at : at + step]])
        for at in range(0, len(left), step)
    ]
    return np.concatenate([np.empty(0), *parts])


def mine_again(features: np.ndarray, count: int, threshold: float) -> Mined:
    """Nearest neighbours of every image, block by block.

    Args:
        features: (N, F), N > count.
        count: Neighbours of each image.
        threshold: Least cosine of a pair.
    """
    wide = features.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    units = wide / np.where(length > 0, length, 1.0)
    total, step = len(units), max(1, BLOCK // len(units))
    least, following = np.empty(total), np.empty(total)
    anchors, others, cosines = [], [], []
    for start in range(0, total, step):
        block = units[start : start + step] @ units.T  # (B, N)
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf  # no image is its own neighbour, and it comes last
        # Ascending: the count-th largest, and the one after it, which may be the image itself.
        places = [total - count - 1, total - count]
        following[start + rows], least[start + rows] = np.partition(block, places)[:, places].T
        sure = block > np.maximum(following[start + rows, None], threshold) + BAND
        row, column = np.nonzero(sure)
        anchors.append(start + row)
        others.append(column)
        cosines.append(block[row, column])
    anchor, other, cosine = map(np.concatenate, (anchors, others, cosines))
    mutual = (anchor < other) & (cosine > following[other] + BAND)
    return Mined(units, least, anchor[mutual] * total + other[mutual])


def _form(pairs: np.ndarray, total: int) -> Problem | None:
    """Images in range, left before right, each pair once, in order."""
    if pairs.ndim != 1 or not {"left", "right", "cosine"} <= set(pairs.dtype.names or ()):
        return "rows of left, right and cosine", f"{pairs.dtype} {pairs.shape}"
    left, right = pairs["left"].astype(np.int64), pairs["right"].astype(np.int64)
    wrong = np.flatnonzero((left < 0) | (left >= right) | (right >= total))
    if len(wrong):
        return f"0 <= left < right < {total}", f"row {wrong[0]}: {pairs[wrong[0]]}"
    if (disordered := np.flatnonzero(np.diff(left * total + right) <= 0)).size:
        return "pairs in order, each once", f"row {disordered[0] + 1}: {pairs[disordered[0] + 1]}"
    return None


def _content(pairs: np.ndarray, mined: Mined, threshold: float) -> Problem | None:
    """Every stored pair follows from the features, and every certain one is stored."""
    left, right = pairs["left"].astype(np.int64), pairs["right"].astype(np.int64)
    cosines = _cosines(mined.units, left, right)
    tests = {
        "the cosine of the features": ~(np.abs(pairs["cosine"] - cosines) <= BAND),
        f"a cosine of at least {threshold}": cosines < threshold - BAND,
        "a mutual nearest neighbour": cosines
        < np.maximum(mined.least[left], mined.least[right]) - BAND,
    }
    for expected, wrong in tests.items():
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            found = f"row {row}: {pairs[row]} with cosine {cosines[row]:.6f}, {wrong.sum()} such"
            return expected, found
    total = len(mined.units)
    absent = np.setdiff1d(mined.certain, left * total + right)
    if len(absent):
        pair = (int(absent[0]) // total, int(absent[0]) % total)
        return f"the pair {pair}", f"{len(absent)} mutual nearest neighbours are not stored"
    return None


def _record(artefact: Artefact, pairs: np.ndarray, card: dict[str, Any]) -> Problem | None:
    """Metrics follow from the pairs, and the record names the dataset's training split."""
    start, stop = card["splits"]["train"]
    paired = len(np.unique([pairs["left"], pairs["right"]]))
    metrics = {
        "pairs/count": len(pairs),
        "pairs/anchors_share": paired / (stop - start),
        "pairs/mean_cosine": float(pairs["cosine"].mean(dtype=np.float64)),
    }
    for name, value in metrics.items():
        found = artefact.metrics.get(name)
        if type(found) not in (int, float) or not abs(found - value) <= BAND:
            return f"{name} = {value:.6g}", f"{found}"
    owner = {"split": "train", "anchors": stop - start, "images_sha256": card["images_sha256"]}
    recorded = artefact.predicate["facts"].get("dataset", {})
    for name, value in owner.items():
        if recorded.get(name) != value:
            return f"{name} = {value} of the dataset", f"{recorded.get(name)}"
    return None


def _judge(artefact: Artefact, judge: Artefact | None, spec: PairsSpec) -> Problem | None:
    """The record names the run that judged, and labels had a part if they had one in that run."""
    facts, expected = artefact.predicate["facts"], {"run": spec.run}
    free = judge.predicate["facts"].get("label_free") if judge else None
    if isinstance(free, bool):  # if not, A01, A05 or A41 reports it
        expected["label_conditioned"] = not free
    for name, value in expected.items():
        found = facts.get(name)
        if found != value or type(found) is not type(value):
            return f"{name} = {value} of the judging run", f"{found}"
    return None


def _problem(
    artefact: Artefact, data: Artefact, judge: Artefact | None, spec: PairsSpec
) -> Problem | None:
    try:
        pairs = np.load(artefact.folder / "pairs.npy", allow_pickle=False)
        features = np.load(artefact.folder / "features.npy", allow_pickle=False)
        card = read_json(data.folder / "card.json")
        start, stop = card["splits"]["train"]
        expected = f"a feature for each of the {stop - start} training images"
        if features.ndim != 2 or features.dtype != np.float16 or len(features) != stop - start:
            return expected, f"{features.dtype} {features.shape}"
        if not np.isfinite(features).all():
            return "finite features", "others"
        if len(pairs) == 0 or spec.neighbours >= len(features):
            return "pairs, and more images than neighbours", f"{len(pairs)} of {len(features)}"
        if wrong := _form(pairs, len(features)):
            return wrong
        mined = mine_again(features, spec.neighbours, spec.threshold)
        return (
            _content(pairs, mined, spec.threshold)
            or _record(artefact, pairs, card)
            or _judge(artefact, judge, spec)
        )
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, ClspError) as error:
        return "readable pairs, features and card", str(error)


def check(suite: Suite) -> list[Finding]:
    """Mine all pairs again from their features."""
    findings = []
    for name in pairs_needed(suite.params):
        job, spec = pairs_job(suite.params, name), suite.params.pairs[name]
        source = prepare_job(suite.params, spec.dataset)
        judging = pretrain_job(suite.runs[spec.run])
        artefact = suite.records.current(job.stage, job.name, job.spec)
        data = suite.records.current(source.stage, source.name, source.spec)
        if artefact is None or data is None:
            continue  # A01 and A05 report it
        judge = suite.records.current(judging.stage, judging.name, judging.spec)
        if problem := _problem(artefact, data, judge, spec):
            findings.append(
                Finding(
                    ID,
                    BLOCKING,
                    str(artefact.folder / "pairs.npy"),
                    *problem,
                    "the pairs are not what mining their features gives",
                    name,
                    suite.dependents(job.stage, name),
                )
            )
    return findings
