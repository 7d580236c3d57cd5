"""The first steps of a run once more, from its first checkpoint, and one from its middle one."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from clsp.config.execution import switches
from clsp.config.labels import spec_uses_labels
from clsp.config.schema import RunSpec
from clsp.config.strict import parse
from clsp.data.prepared import Prepared, open_prepared
from clsp.models.ema import Teacher
from clsp.pretrain.feed import Feed
from clsp.pretrain.journal import Journal
from clsp.pretrain.loop import Course, Taken
from clsp.pretrain.resume import Position, Resume, snapshot
from clsp.pretrain.setup import Setup, set_up
from clsp.pretrain.watch import Watch
from clsp.runtime.checkpoint import load_tensors, tensors_sha256
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.history import StepLog, read_history
from clsp.runtime.machine import describe_machine
from clsp.runtime.manifest import Artefact

PERMUTED_STEPS = 2  # steps after which weights are compared under permuted labels (audit.md A12)
KINDS = {"gather-bank": "bank", "mine-pairs": "pairs"}


def sort_inputs(artefacts: Sequence[Artefact]) -> tuple[Artefact, dict[str, list[Artefact]]]:
    """The dataset among a run's inputs, and its bank and pairs.

    Raises:
        ConfigError: If there is no dataset, or something a run does not read.
    """
    datasets = [artefact for artefact in artefacts if artefact.stage == "prepare-dataset"]
    given: dict[str, list[Artefact]] = {"bank": [], "pairs": []}
    for artefact in artefacts:
        if artefact.stage in KINDS:
            given[KINDS[artefact.stage]].append(artefact)
        elif artefact not in datasets:
            raise ConfigError(f"--inputs {artefact.manifest}: a run reads no {artefact.stage}")
    if len(datasets) != 1:
        raise ConfigError(f"--inputs: expected one dataset, found {len(datasets)}")
    return datasets[0], given


def permuted(prepared: Prepared, seed: int) -> Prepared:
    """The same dataset with the labels of its training images in another order."""
    start, stop = prepared.card["splits"]["train"]
    labels = np.array(prepared.labels)
    order = np.random.default_rng(seed).permutation(stop - start)
    labels[start:stop] = labels[start:stop][order]
    return dataclasses.replace(prepared, labels=labels)


def repeatable(spec: RunSpec) -> RunSpec:
    """The same run by kernels that repeat their bits; its arithmetic and its views stay.

    Of a run that was computed by others, only what is near its log can be expected then.
    """
    chosen = switches(spec.execution)
    if chosen.deterministic:
        return spec
    plain = {"deterministic": True, "compile": False, "fused": False}
    return spec.model_copy(update={"execution": chosen.model_copy(update=plain)})


@dataclasses.dataclass
class Beginning:
    """The loop of a run at one of its steps, logging into a folder of its own."""

    course: Course
    feed: Feed
    log: StepLog

    def step(self) -> Taken:
        """Take one step."""
        return self.course.advance(self.feed.batch(self.course.position.step))

    def records(self) -> list[dict[str, Any]]:
        """The log so far."""
        self.course.journal.flush()
        return read_history(self.log.path)


def _begin(setup: Setup, prepared: Prepared, step: int, folder: Path) -> Beginning:
    labels = torch.from_numpy(np.array(prepared.split("train").labels)).to(setup.anchors.device)
    watch = Watch(setup.method, labels, setup.spec.recipe.epochs)
    resume = Resume(folder / "scratch", "replay", setup.method, setup.optimizer)
    log = StepLog(folder / f"from-{step}.jsonl")
    course = Course(setup, watch, Position(step=step), Journal(log), resume)
    return Beginning(course, Feed(setup, workers=0), log)


def _weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().double().clone() for parameter in module.parameters()]


def _follow(begun: Beginning) -> float | None:
    """Take a step; the relative deviation of the moving average from m * old + (1 - m) * online."""
    method = begun.course.setup.method
    teacher = getattr(method, "teacher", None)
    if not isinstance(teacher, Teacher):
        begun.step()
        return None
    old, online = _weights(teacher.network), _weights(method.online())
    taken = begun.step()
    decay = taken.known["momentum"]
    pairs = zip(old, online, _weights(teacher.network), strict=True)
    gaps = [
        ((decay * o + (1 - decay) * q - now).square().sum(), o.square().sum())
        for o, q, now in pairs
    ]
    return float((sum(gap for gap, _ in gaps) / sum(size for _, size in gaps)).sqrt())


def _load(setup: Setup, path: Path) -> int:
    """Put a checkpoint's tensors into the method; returns its step.

    Raises:
        DataError: If they do not fit.
    """
    tensors, metadata = load_tensors(path)
    try:
        setup.method.load_state_dict(tensors, strict=True)
        return int(metadata["step"])
    except (RuntimeError, KeyError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise DataError(f"{path}: does not fit the run's method ({told})") from error


@dataclasses.dataclass
class Repeated:
    """What the first steps give."""

    records: list[dict[str, Any]]
    start: bool
    teacher_gap: float | None
    digest: str | None


def _first(setup: Setup, prepared: Prepared, run: Artefact, steps: int, folder: Path) -> Repeated:
    fresh = tensors_sha256(snapshot(setup.method))
    path = run.folder / "checkpoints/start.safetensors"
    _load(setup, path)
    same = tensors_sha256(snapshot(setup.method)) == fresh
    begun, gaps, digest = _begin(setup, prepared, 0, folder), [], None
    for number in range(1, min(steps, setup.steps) + 1):
        if number <= PERMUTED_STEPS:
            gaps.append(_follow(begun))
        else:
            begun.step()
        if number == PERMUTED_STEPS:
            digest = tensors_sha256(snapshot(setup.method))
    known = [gap for gap in gaps if gap is not None]
    return Repeated(begun.records(), same, max(known, default=None), digest)


def repeat_first_steps(
    run: Artefact, inputs: Sequence[Artefact], steps: int, seed: int
) -> dict[str, Any]:
    """Repeat the beginning of a run.

    Resume states do not outlive a run, so that the optimizer's memory is known at its start only:
    from there steps are repeated in a row. Behind the middle checkpoint it is one step, whose loss
    no optimizer had a part in.

    Args:
        run: Of pretrain-encoder.
        inputs: Its dataset, and its bank or pairs.
        steps: To repeat.
        seed: Of the permutation of labels.

    Returns:
        See clsp.audit.replaying.Replayer.training.

    Raises:
        ConfigError, DataError: If artefacts do not belong together.
    """
    recorded = run.predicate["internalParameters"]
    threads = int(recorded.get("threads") or 1)
    torch.set_num_threads(threads)
    spec, device = repeatable(parse(RunSpec, run.spec, f"{run.manifest}")), resolve()
    dataset, given = sort_inputs(inputs)
    prepared = open_prepared(dataset)
    with tempfile.TemporaryDirectory(prefix="clsp-repeat-") as name:
        folder = Path(name)
        first = _first(set_up(spec, prepared, given, device), prepared, run, steps, folder)
        setup, middle = set_up(spec, prepared, given, device), None
        at = _load(setup, run.folder / "checkpoints/middle.safetensors")
        if at < setup.steps:
            begun = _begin(setup, prepared, at, folder)
            begun.step()
            middle = begun.records()[-1]
        other = None
        if not any(spec_uses_labels(spec).values()) and first.digest is not None:
            changed = permuted(prepared, seed)
            setup = set_up(spec, changed, given, device)
            other = _first(setup, changed, run, PERMUTED_STEPS, folder).digest
    same_torch = recorded.get("versions", {}).get("torch") == torch.__version__
    return {
        "records": first.records,
        "middle": middle,
        "start": first.start if same_torch else None,
        "teacher_gap": first.teacher_gap,
        "digest": first.digest if other is not None else None,
        "permuted_digest": other,
        "machine": describe_machine(threads),
    }
