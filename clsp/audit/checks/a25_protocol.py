"""What stands side by side was made under one protocol, but for the differences that are declared.

Runs of one method differ in positives and seed alone: same recipe, same probe. Work is steps times
batch, as counted. Schedules are not empty. Different work of different methods is noted.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from clsp.audit.finding import BADGE, BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.grid import Run
from clsp.config.plan import probe_job
from clsp.runtime.canonical import canonical_json
from clsp.runtime.manifest import Artefact

ID = "A25"
SEVERITY = BLOCKING
LEVEL = "L0"
# A rate of the linear probe may differ per run: `overrides:` declares it, A05 compares it.
DECLARED = ("run", "learning_rate")

Problem = tuple[str, str]  # expected, found


def _views(run: Run) -> int:
    """Views per image and step: two of the anchor, one of the positive."""
    return 2 + (run.spec.positives != "none")


def _work(run: Run, artefact: Artefact) -> Problem | None:
    counters = artefact.predicate["counters"]
    expected = counters.get("optimizer_steps", 0) * run.spec.recipe.batch_size
    found = counters.get("samples")
    if found != expected:
        return f"{expected} anchors seen, steps times batch", f"{found}"
    return None


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(v) for key, v in value.items() if key not in DECLARED}
    return value


def _protocol(suite: Suite, run: Run, artefact: Artefact) -> dict[str, str]:
    """Everything that runs of one method, dataset and encoder share, as text."""
    spec, job = artefact.spec, probe_job(run)
    probe = suite.records.current(job.stage, job.name, job.spec)
    shared = {k: spec.get(k) for k in ("recipe", "method_options", "encoder", "normalisation")}
    if probe is not None:
        shared["probe"] = _without(probe.spec)
    return {key: canonical_json(value) for key, value in shared.items()}


def _groups(suite: Suite) -> Iterator[list[tuple[Run, Artefact]]]:
    groups: dict[tuple[str, ...], list[tuple[Run, Artefact]]] = {}
    for run, artefact in suite.trainings:
        key = tuple(str(run.axes[axis]) for axis in ("dataset", "encoder", "method"))
        groups.setdefault(key, []).append((run, artefact))
    yield from groups.values()


def _unequal(suite: Suite, group: list[tuple[Run, Artefact]]) -> Iterator[Finding]:
    first, made = group[0]
    wanted = _protocol(suite, first, made)
    for run, artefact in group[1:]:
        found = _protocol(suite, run, artefact)
        odd = [key for key in wanted.keys() & found.keys() if wanted[key] != found[key]]
        if odd:
            message = "runs that are compared were made under different protocols"
            told = (f"{odd[0]} as in {first.slug}", f"{found[odd[0]]}"[:120], message)
            numbers = suite.affected(artefact) | suite.affected(made)
            yield Finding(ID, BLOCKING, str(artefact.manifest), *told, run.slug, numbers)


def unpaired(seeds: Mapping[str, Collection[int]]) -> tuple[str, str] | None:
    """Two things that are compared and do not have the same seeds, as expected and found; or None.

    Args:
        seeds: What is compared -> seeds of its runs.
    """
    (first, wanted), *others = seeds.items()
    for name, found in others:
        if set(found) != set(wanted):
            return f"seeds {sorted(wanted)} as {first}", f"{sorted(found)} of {name}"
    return None


def _seeds(group: list[tuple[Run, Artefact]]) -> Iterator[Finding]:
    """Notes where runs with and without positives have other seeds: pairs cannot be formed."""
    seeds: dict[str, list[int]] = {}
    for run, artefact in group:
        seeds.setdefault(run.label, []).append(artefact.spec.get("seed"))
    if problem := unpaired(seeds):
        message, (run, artefact) = "runs that are compared have other seeds", group[0]
        about = f"{run.axes['dataset']} {run.axes['method']}"
        yield Finding(ID, BADGE, str(artefact.manifest), *problem, message, about)


def _schedule(run: Run) -> Iterator[tuple[str, Problem]]:
    recipe, options = run.spec.recipe, run.spec.method_options
    if recipe.warmup_epochs >= recipe.epochs:
        told = (f"a warm-up below {recipe.epochs} epochs", f"{recipe.warmup_epochs}")
        yield BLOCKING, told
    if recipe.warmup_epochs > 1 and recipe.warmup_start == recipe.peak:
        yield BADGE, ("a warm-up that starts below the peak", f"{recipe.warmup_start}")
    warm, start = options.get("teacher_warmup_epochs"), options.get("teacher_temperature_start")
    if warm and warm > 1 and start == options.get("teacher_temperature"):
        yield BADGE, ("a warm-up of the temperature that changes it", f"{start} throughout")


def _compared(suite: Suite) -> Iterator[Finding]:
    """Work that methods of one table were given, where it differs."""
    tables: dict[tuple[str, str], dict[tuple[int, int, int], str]] = {}
    for run, _ in suite.trainings:
        recipe = run.spec.recipe
        place = str(run.axes["dataset"]), str(run.axes["encoder"])
        work = recipe.epochs, recipe.batch_size, _views(run)
        tables.setdefault(place, {}).setdefault(work, run.label)
    for place, kinds in tables.items():
        if len(kinds) > 1:
            told = "; ".join(
                f"{label}: {epochs} epochs, batch {batch}, {views} views"
                for (epochs, batch, views), label in kinds.items()
            )
            message = "methods that are compared were given different work"
            about = " ".join(place)
            yield Finding(ID, BADGE, "params.yaml", "the same work", told, message, about)


def check(suite: Suite) -> list[Finding]:
    """Compare recipes, probes, work and schedules."""
    groups = list(_groups(suite))
    findings = [f for group in groups for f in [*_unequal(suite, group), *_seeds(group)]]
    for run, artefact in suite.trainings:
        path, numbers = str(artefact.manifest), suite.affected(artefact)
        if problem := _work(run, artefact):
            message = "the work counted is not that of the schedule"
            findings.append(Finding(ID, BLOCKING, path, *problem, message, run.slug, numbers))
        message = "the schedule does not do what it is there for"
        for severity, told in _schedule(run):
            findings.append(Finding(ID, severity, path, *told, message, run.slug, numbers))
    return [*findings, *_compared(suite)]
