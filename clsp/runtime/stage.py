"""What a stage function looks like.

A stage is an ordinary function whose parameters say what they are:

    spec: SomeSpec           --spec JSON, validated
    dataset: Input           --dataset FILE...   one artefact (its manifest among the files)
    manifests: Inputs        --manifests FILE... any number of artefacts
    published: File          --published FILE    a tracked file; its hash is recorded
    foreign: Files           --foreign FILE...   the same for one or more files
    images: Output           --images PATH       lent as a private path, moved into place at the end
    scratch: Scratch         --scratch DIR       survives interruption, removed on success
    other: str | int | Path  --other VALUE

It computes, writes its outputs and returns an Outcome. clsp.job does the rest, once for every
stage: it verifies inputs, moves outputs into place, writes the manifest and mirrors to MLflow.
"""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from clsp.runtime.manifest import Artefact

Input = Annotated[Artefact, "input"]
Inputs = Annotated[list[Artefact], "inputs"]
File = Annotated[Path, "file"]
Files = Annotated[list[Path], "files"]
Output = Annotated[Path, "output"]
Scratch = Annotated[Path, "scratch"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a stage reports: metrics (judged numbers), counters (work done) and facts (the rest)."""

    metrics: dict[str, float | int] = dataclasses.field(default_factory=dict)
    counters: dict[str, int] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a stage: its name and how the command line fills it."""

    name: str
    kind: str  # spec, input, inputs, file, files, output, scratch or value
    type: Any


def parameters(function: Callable[..., Outcome]) -> list[Parameter]:
    """Read the parameters of a stage function from its signature."""
    hints = get_type_hints(function, include_extras=True)
    found = []
    for name in inspect.signature(function).parameters:
        hint = hints[name]
        if name == "spec":
            found.append(Parameter(name, "spec", hint))
        elif get_origin(hint) is Annotated:
            found.append(Parameter(name, get_args(hint)[1], hint))
        else:
            found.append(Parameter(name, "value", hint))
    return found
