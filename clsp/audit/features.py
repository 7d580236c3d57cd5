"""Stored features of an encoder on its own dataset, with the labels they belong to."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clsp.audit.suite import Suite
from clsp.audit.weights import read_tensors
from clsp.config.foreign import Imported
from clsp.config.grid import Run
from clsp.config.plan import features_job
from clsp.runtime.manifest import Artefact

FILE = "features.safetensors"


@dataclass(frozen=True)
class Case:
    """What a linear probe or kNN learns from.

    Attributes:
        artefact: Of the features.
        train: float32 (N, F), labelled images alone; mirror images behind them where the probe
            draws them.
        labels: int (N,).
        test: float32 (M, F).
        truth: int (M,).
        classes: How many.
    """

    artefact: Artefact
    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    truth: np.ndarray
    classes: int


def _read(artefact: Artefact, names: list[str]) -> list[np.ndarray]:
    """Features by name.

    Raises:
        KeyError: Naming those that are not there.
    """
    tensors, _ = read_tensors(artefact.folder / FILE, names)
    return [tensors[name] for name in names]


def _own(suite: Suite, judged: Run | Imported) -> tuple[Artefact, str, Any, Any] | None:
    """Features of an encoder, and name, labels and card of its own dataset, if all are there."""
    job, name = features_job(judged), judged.features.own
    artefact = suite.records.current(job.stage, job.name, job.spec)
    dataset = suite.dataset(name) if name else None
    if artefact is None or dataset is None or dataset[0].ndim != 1:
        return None
    return artefact, name, *dataset


def read_test(suite: Suite, judged: Run | Imported) -> tuple[Artefact, np.ndarray] | None:
    """Features of the test images, (M, F), and their artefact; None where one is not there.

    What is damaged counts as not there; A23 reports it.
    """
    found = _own(suite, judged)
    if found is None:
        return None
    try:
        (test,) = _read(found[0], [f"{found[1]}/test"])
    except (OSError, ValueError, KeyError):
        return None
    return (found[0], test) if test.ndim == 2 and len(test) else None


def read_case(suite: Suite, judged: Run | Imported) -> Case | None:
    """Features and labels of an encoder's own dataset; None where an artefact is not there.

    Raises:
        OSError, ValueError, KeyError, TypeError: If they are damaged or do not fit each other.
    """
    found = _own(suite, judged)
    if found is None:
        return None
    artefact, name, labels, card = found
    own, truth = (labels[slice(*card["splits"][split])] for split in ("train", "test"))
    own = own[own >= 0]
    train, test = _read(artefact, [f"{name}/train", f"{name}/test"])
    if judged.probe.linear.flip:
        train = np.concatenate([train, *_read(artefact, [f"{name}/train.mirrored"])])
    case = Case(artefact, train, own, test, truth, len(card["classes"]))
    if len(train) != len(own) * (1 + judged.probe.linear.flip) or len(test) != len(truth):
        raise ValueError(f"{len(train)} and {len(test)} features of {len(own)}, {len(truth)}")
    if {train.dtype, test.dtype} != {np.dtype(np.float32)}:
        raise ValueError(f"features of type {train.dtype} and {test.dtype} instead of float32")
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise ValueError(f"features {train.shape} and {test.shape}")
    return case
