"""Stage extract-features: features of one encoder, or of a floor, on every dataset it is judged on.

Everything that judges reads this cache, so that each image passes each encoder once (mirror images,
for the probe that flips, once more).
"""

from typing import Any

import torch

from clsp.config.evaluation import FeatureSpec
from clsp.evaluate.cache import feature_file, name_of
from clsp.evaluate.labelled import Part, Task, check_given, open_task
from clsp.models.features import (
    PixelSource,
    Source,
    batch_size_for,
    extract,
    open_frozen,
    open_untrained,
)
from clsp.runtime.canonical import canonical_json
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Inputs, Outcome, Output


def _check(spec: FeatureSpec, encoder: list[Artefact], datasets: list[Artefact]) -> None:
    check_given(datasets, dict.fromkeys([*([spec.own] if spec.own else []), *spec.tasks]))
    needed = 0 if spec.source == "pixels" else 1
    if len(encoder) != needed:
        raise ConfigError(
            f'--encoder: features from "{spec.source}" need {needed} encoders, found {len(encoder)}'
        )
    if spec.mirrored and spec.own is None:
        raise ConfigError(f"run {spec.run}: mirrored features are asked for, but no own dataset")


def _open(spec: FeatureSpec, encoder: list[Artefact], device: torch.device) -> Source:
    if spec.source == "pixels":
        return PixelSource()
    if spec.source == "random":
        return open_untrained(encoder[0], device)
    return open_frozen(encoder[0], spec.run, device)


def _parts(spec: FeatureSpec, task: Task) -> dict[str, tuple[Part, bool]]:
    """What is extracted of one dataset, by tensor: images, and whether they are mirrored."""
    splits = [("train", task.train), ("val", task.val), ("test", task.test)]
    found = {name_of(task.name, name): (part, False) for name, part in splits if len(part)}
    if spec.mirrored and task.name == spec.own:
        found[name_of(task.name, "train", mirrored=True)] = (task.train, True)
    return found


def extract_features(
    spec: FeatureSpec, encoder: Inputs, datasets: Inputs, features: Output
) -> Outcome:
    """Extract all features of one encoder or floor.

    Args:
        spec: Whose features, and of which datasets.
        encoder: The run that the spec names; for the source "random" the run whose weights before
            the first step are used; for "pixels" none.
        datasets: The own dataset first, if the spec names one, then the tasks; each once.
        features: See clsp/evaluate/cache.py.

    Raises:
        ConfigError: If encoder or datasets are not those of the spec.
        DataError: If a file is corrupt, a split has no label or a feature is not finite.
    """
    _check(spec, encoder, datasets)
    source = _open(spec, encoder, resolve())
    tasks = [open_task(artefact) for artefact in datasets]  # all are checked before any work
    parts = {name: part for task in tasks for name, part in _parts(spec, task).items()}
    shapes = {n: (len(p), source.width(p.images)) for n, (p, _) in parts.items()}
    # One entry: safetensors writes several in an order that changes from call to call.
    metadata = {"spec": canonical_json(spec.canonical())}
    with feature_file(features, shapes, metadata) as arrays:
        for name, (part, mirrored) in parts.items():
            about = f"features {spec.run} {name}"
            size = batch_size_for(part.images)
            extract(source, part.images, size, about, mirrored, arrays[name])
    widths = {width for _, width in shapes.values()}
    facts: dict[str, Any] = {
        "epoch": source.epoch,
        "source": spec.source,
        # Pixels have as many as an image, so that datasets may differ.
        "features": widths.pop() if len(widths) == 1 else None,
        "resolutions": {task.name: source.resolution(task.train.images) for task in tasks},
    }
    counters = {"images": sum(count for count, _ in shapes.values()), "datasets": len(tasks)}
    return Outcome({}, counters, facts)
