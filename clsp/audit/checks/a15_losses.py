"""Step logs are finite, losses are the sum of their terms, and rates follow their schedules."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.grid import Run
from clsp.config.recipe import RecipeSpec
from clsp.runtime.manifest import Artefact

ID = "A15"
SEVERITY = BLOCKING
LEVEL = "L2"
TOLERANCE = 1e-6
TINY = 1e-12
ALWAYS = ("step", "epoch", "lr", "loss", "embedding_std")

Problem = tuple[str, str]  # expected, found


def expected_rates(recipe: RecipeSpec, places: np.ndarray, unit: int) -> np.ndarray:
    """Learning rate at places of the schedule, counted from 0 (methods.md 1.4).

    Places are epochs, or steps where the recipe says so. Warm-up is a line from `warmup_start` at
    the first place to the peak at its last one; from the next place on half a cosine falls from
    the peak to 0 at the end of the run.

    Args:
        recipe: Of the run.
        places: int (n,).
        unit: Places per epoch.
    """
    scaled = recipe.learning_rate_scaling == "batch_256"
    peak = recipe.learning_rate * (recipe.batch_size / 256 if scaled else 1)
    warmup = recipe.warmup_epochs * unit
    rising = np.linspace(recipe.warmup_start, peak, warmup)
    falling = np.linspace(0, np.pi / 2, recipe.epochs * unit - warmup, endpoint=False)
    return np.concatenate([rising, peak * np.cos(falling) ** 2])[places]


def expected_momenta(start: float, end: float, steps: np.ndarray, total: int) -> np.ndarray:
    """Decay of the moving average in each step: set by the step before, half a cosine upwards."""
    done = np.maximum(steps - 1, 0) / total
    return start + (end - start) * np.sin(np.pi * done / 2) ** 2


def _columns(run: Run, terms: list[str], records: list[dict[str, Any]]) -> Problem | None:
    """Every record holds what it must, and the alignment exactly where there is a positive."""
    wanted = {*ALWAYS, *terms}
    if not terms or {"alignment", *ALWAYS} & set(terms):
        return "the names of the loss terms in the manifest", ", ".join(terms) or "none"
    paired = run.spec.positives != "none"
    wanted |= {"alignment"} if paired else set()
    for record in records:
        if absent := sorted(wanted - record.keys()):
            return f"{', '.join(sorted(wanted))} in every step", (
                f"step {record['step']} without {', '.join(absent)}"
            )
        if not paired and "alignment" in record:
            return "no alignment without positives", f"alignment in step {record['step']}"
    return None


def _values(run: Run, terms: list[str], records: list[dict[str, Any]]) -> Problem | None:
    """Values are finite, and loss = sum of the terms + weight * alignment."""
    for record in records:
        if any(not math.isfinite(value) for value in record.values()):
            return "finite values", f"step {record['step']}: {record}"
        if record["embedding_std"] < 0:
            return "a spread", f"embedding_std {record['embedding_std']} in step {record['step']}"
        pulled = run.spec.alignment_weight * record.get("alignment", 0.0)
        gap = record["loss"] - math.fsum([pulled, *(record[name] for name in terms)])
        if abs(gap) > TOLERANCE * max(1.0, abs(record["loss"])):
            return "a loss equal to its parts", f"step {record['step']}: off by {gap:.3g}"
    return None


def _schedules(run: Run, records: list[dict[str, Any]]) -> Problem | None:
    """Learning rate and, where the method has one, the decay of its moving average."""
    options, recipe = run.spec.method_options, run.spec.recipe
    steps = np.array([record["step"] for record in records])
    epochs = np.array([record["epoch"] for record in records])
    if len(records) == 0 or epochs.min() < 0 or epochs.max() >= recipe.epochs:
        return f"epochs 0 to {recipe.epochs - 1}", f"{sorted(set(epochs.tolist()))[-3:]}"
    by_step = recipe.schedule == "step"
    unit = len(records) // recipe.epochs if by_step else 1
    if by_step and (steps.min() < 0 or steps.max() >= recipe.epochs * unit):
        return f"steps 0 to {recipe.epochs * unit - 1}", f"{steps.min()} to {steps.max()}"
    expected = {"lr": expected_rates(recipe, steps if by_step else epochs, unit)}
    if {"momentum_start", "momentum_end"} <= options.keys():
        bounds = options["momentum_start"], options["momentum_end"]
        expected["momentum"] = expected_momenta(*bounds, steps, len(records))
    for name, values in expected.items():
        found = np.array([record.get(name, math.nan) for record in records])
        # At the end of a long run the cosine cancels: below TINY only rounding is left.
        wrong = np.flatnonzero(~(np.abs(found - values) <= TOLERANCE * np.abs(values) + TINY))
        if len(wrong):
            first = wrong[0]
            return f"{name} = {values[first]:.8g} in step {steps[first]}", f"{found[first]:.8g}"
    return None


def _repeated(records: list[dict[str, Any]]) -> Problem | None:
    """Two epochs that logged the very same losses: one of them was copied, or trained twice."""
    seen: dict[tuple[float, ...], int] = {}
    losses: dict[int, list[float]] = {}
    for record in records:
        losses.setdefault(record["epoch"], []).append(record["loss"])
    for epoch, values in losses.items():
        if len(set(values)) > 1 and seen.setdefault(tuple(values), epoch) != epoch:
            return "losses of its own in every epoch", f"epoch {epoch} as {seen[tuple(values)]}"
    return None


def _ending(artefact: Artefact, records: list[dict[str, Any]]) -> Problem | None:
    """The reported loss is the mean of the last epoch, in which embeddings still spread."""
    last = [record for record in records if record["epoch"] == records[-1]["epoch"]]
    mean = math.fsum(record["loss"] for record in last) / len(last)
    told = artefact.metrics.get("pretrain/loss")
    if told is None or abs(told - mean) > TOLERANCE * max(1.0, abs(mean)):
        return f"pretrain/loss = {mean:.8g}, the mean of the last epoch", f"{told}"
    if not last[-1]["embedding_std"] > 0:
        return "embeddings that spread", "embedding_std 0 at the end"
    return None


def _twins(suite: Suite) -> Iterator[tuple[Run, Artefact, Problem]]:
    """Runs of different seeds with the very same losses: one log was put in both places."""
    seen: dict[tuple[float, ...], Run] = {}
    for run, artefact in suite.trainings:
        try:
            losses = tuple(record["loss"] for record in suite.history(artefact))
        except (OSError, ValueError, KeyError):
            continue  # reported run by run
        other = seen.setdefault(losses, run)
        if len(set(losses)) > 1 and other.spec.seed != run.spec.seed:
            yield run, artefact, ("losses of its own", f"those of {other.slug}")


def _problem(suite: Suite, run: Run, artefact: Artefact) -> Problem | None:
    terms = artefact.predicate["facts"].get("terms", [])
    try:
        records = suite.history(artefact)
    except (OSError, ValueError) as error:
        return "a readable step log", str(error)
    return (
        _columns(run, terms, records)
        or _values(run, terms, records)
        or _schedules(run, records)
        or _repeated(records)
        or _ending(artefact, records)
    )


def check(suite: Suite) -> list[Finding]:
    """Read the step log of every run."""
    message = "the step log contradicts itself or the settings"
    found = [(r, a, p) for r, a in suite.trainings if (p := _problem(suite, r, a))]
    return [
        Finding(
            ID,
            BLOCKING,
            str(artefact.folder / "history.jsonl"),
            *problem,
            message,
            run.slug,
            suite.affected(artefact),
        )
        for run, artefact, problem in [*found, *_twins(suite)]
    ]
