"""Pairs of training images as an artefact of mine-pairs."""

from pathlib import Path

import numpy as np

from clsp.data.pairs import PAIR, STAGE, owner_of
from clsp.data.prepared import Prepared
from clsp.runtime.manifest import Artefact, write_manifest


def write_pairs(
    folder: Path,
    prepared: Prepared,
    pairs: list[tuple[int, int]],
    split: str = "train",
    conditioned: bool = False,
) -> Artefact:
    """Pairs of a dataset's images, all with the cosine 0.9.

    `split` and `conditioned`, whether labels had a part in them, are what the manifest says.
    """
    folder.mkdir(parents=True)
    np.save(folder / "pairs.npy", np.array([(*pair, 0.9) for pair in pairs], PAIR))
    predicate = {
        "step": STAGE,
        "externalParameters": {"spec": {}, "arguments": {}},
        "metrics": {},
        "counters": {},
        "facts": {
            "dataset": {**owner_of(prepared), "split": split},
            "label_conditioned": conditioned,
        },
    }
    files = {"pairs.npy": folder / "pairs.npy"}
    return write_manifest(folder / "manifest.json", files, [], predicate)
