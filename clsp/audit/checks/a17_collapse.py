"""Encoders did not collapse: their features of the own test images spread, and so do their guesses.

Looked at are the features on the dataset that an encoder was trained or is judged on; on images it
never saw even a good encoder's features lie close together. In a demonstration, whose runs may end
before features have spread, only a constant encoder and features on one line block.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from clsp.audit.features import FILE, read_test
from clsp.audit.finding import BADGE, BLOCKING, Finding
from clsp.audit.recompute import load_predictions
from clsp.audit.relearn import Spread, spread_of
from clsp.audit.suite import Suite
from clsp.config.foreign import Imported
from clsp.report.collect import Judged
from clsp.runtime.canonical import sha256_array

ID = "A17"
SEVERITY = BLOCKING
LEVEL = "L2"
# Bounds of audit.md A17, looked at on the demo: encoders of 20 epochs have a deviation of 0.76 or
# more and a rank of 28 of 64; untrained ones 0.08 to 0.17 and 4 to 11 on images of other datasets.
DEVIATION = 0.25  # of unit features, times sqrt(F)
CONSTANT = 0.02  # the same, below which an encoder tells no two images apart
RANK = 10.0  # RankMe; of narrow features or few images at most a quarter of what is possible
DEAD = 0.2  # share of dimensions that never change
TWIN = 12  # decimals of features of total length 1 that two runs cannot have in common
FROZEN_RANK = 1.5  # below it, features lie on one line


def _spread(spread: Spread, shape: tuple[int, ...], short: bool) -> Iterator[tuple[str, str, str]]:
    """Severity, expected and found of what is wrong; `short`: with the features of short runs."""
    mild = BADGE if short else BLOCKING
    if not spread.finite:
        yield BLOCKING, "finite features", "NaN or infinity"
        return
    if spread.deviation < DEVIATION:
        expected = f"a deviation of at least {DEVIATION} / sqrt(F)"
        severity = mild if spread.deviation >= CONSTANT else BLOCKING
        yield severity, expected, f"{spread.deviation:.3g} / sqrt(F)"
    least = min(RANK, max(FROZEN_RANK, min(shape) / 4))
    if spread.rank < least:
        severity = mild if spread.rank >= FROZEN_RANK else BLOCKING
        yield severity, f"a RankMe of at least {least:g}", f"{spread.rank:.3g} of {min(shape)}"
    if spread.dead > DEAD:
        yield BLOCKING, f"at most {DEAD:.0%} of dimensions that never change", f"{spread.dead:.0%}"


def _guesses(suite: Suite, judged: Judged) -> Iterator[tuple[str, str, str]]:
    """Probes that predict one class for everything."""
    for each, probe in suite.probes:
        if each is not judged:
            continue
        for number, record in suite.results_of(judged, probe):
            if number.protocol != "linear":
                continue
            names = record["predictions"]
            path = probe.folder / names["file"]
            try:
                logits = load_predictions(path, names).logits
            except (OSError, ValueError, KeyError, TypeError):
                continue  # A19 reports it
            if logits is not None and len(np.unique(logits.argmax(axis=1))) < 2:
                yield str(path), "more than one predicted class", "one"


def _problems(
    suite: Suite, judged: Judged, path: str, test: np.ndarray
) -> Iterator[tuple[str, str, str, str]]:
    """Severity, file, expected and found."""
    for severity, *told in _spread(spread_of(test), test.shape, suite.params.demonstration):
        yield severity, path, *told
    for problem in _guesses(suite, judged):
        yield BLOCKING, *problem


def _twins(tests: dict[str, tuple[Any, np.ndarray]], suite: Suite) -> Iterator[Finding]:
    """Runs whose features of the test images are those of another run, bit for bit or scaled."""
    seen: dict[str, str] = {}
    for slug, (artefact, test) in tests.items():
        if not np.isfinite(test).all() or not np.abs(test).max() > 0:
            continue
        unit = test.astype(np.float64) / np.linalg.norm(test)
        other = seen.setdefault(sha256_array(unit.round(TWIN)), slug)
        if other != slug:
            message = "two runs cannot have the same features; one encoder was put in both places"
            told = (
                str(artefact.folder / FILE),
                "features of its own",
                f"those of {other}",
                message,
            )
            numbers = suite.affected(artefact) | suite.affected(tests[other][0])
            yield Finding(ID, BLOCKING, *told, slug, numbers)


def check(suite: Suite) -> list[Finding]:
    """Measure the features of every encoder on its own test images."""
    findings, tests = [], {}
    for judged in [*suite.runs.values(), *suite.imported.values()]:
        found = read_test(suite, judged)
        if found is None:
            continue  # A01, A02 and A23 report it
        artefact, test = found
        if judged.slug in suite.runs:
            tests[judged.slug] = found
        # Of an encoder that somebody else trained it is a fact about it, not about our records.
        foreign = isinstance(judged, Imported)
        numbers = suite.affected(artefact)
        message = "the encoder collapsed, or its features are not those of an encoder"
        findings += [
            Finding(ID, BADGE if foreign else severity, *told, message, judged.slug, numbers)
            for severity, *told in _problems(suite, judged, str(artefact.folder / FILE), test)
        ]
    return [*findings, *_twins(tests, suite)]
