"""Reference convergence points: the authors' curves, the bands around them, and explanations."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from clsp.config.load import read_yaml
from clsp.config.schema import EncoderSpec, Params, RunSpec
from clsp.config.strict import (
    Name,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Strict,
    Text,
    parse,
)
from clsp.runtime.canonical import read_json
from clsp.runtime.digest import ROOT

EXPECTATIONS = ROOT / "reports/spec"  # of this copy of the suite, apart from any results
Number = Annotated[float, Field(allow_inf_nan=False)]
Point = tuple[Number, Number]  # epoch, value


class Curve(Strict):
    """One run of the authors."""

    run: Text
    dataset: Name  # kind
    architecture: Name
    stem: Name
    width: PositiveInt
    method: Name  # plug-in
    positives: Name  # source
    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    seed: Seed
    accuracy: Annotated[tuple[Point, ...], Field(min_length=1)]  # percent, ascending epochs
    losses: dict[Name, tuple[Point, ...]]

    def is_recipe_of(self, kind: str, spec: RunSpec) -> bool:
        """Whether a run on a dataset of a kind follows the recipe of this curve."""
        encoder = EncoderSpec(architecture=self.architecture, stem=self.stem, width=self.width)
        recipe = spec.recipe
        mine = (self.dataset, self.method, self.positives, self.epochs, self.batch_size)
        theirs = (kind, spec.method, spec.positives, recipe.epochs, recipe.batch_size)
        same_rate = self.learning_rate == recipe.learning_rate
        return mine == theirs and same_rate and spec.encoder == encoder


class Curves(Strict):
    """The whole of official_curves.json."""

    schema_version: Literal[1]
    source: Text
    notes: tuple[Text, ...]
    bands: dict[Name, PositiveFloat]  # tau in points, by kind of dataset
    widening: Annotated[tuple[tuple[NonNegativeInt, PositiveFloat], ...], Field(min_length=1)]
    band_source: Text
    runs: tuple[Curve, ...]

    def tau(self, kind: str, epoch: float) -> float:
        """Half the height of the band on a dataset of a kind at an epoch, points."""
        factor = next(f for start, f in reversed(self.widening) if epoch >= start)
        return self.bands[kind] * factor


class Explanation(Strict):
    """Why a row may be better than the authors' curve."""

    dataset: Name
    architecture: Name
    label: Text
    found: Number  # percent: the mean that was looked at
    by: Text
    date: Text
    reason: Annotated[str, Field(min_length=20)]


class Explanations(Strict):
    """The whole of explanations.yaml."""

    explanations: tuple[Explanation, ...]

    def why(self, curve: Curve, label: str, mean: float) -> str:
        """Why a row may be above its band, as somebody wrote of this very mean; else nothing."""
        for one in self.explanations:
            place = (one.dataset, one.architecture, one.label)
            same = place == (curve.dataset, curve.architecture, label)
            if same and round(one.found, 2) == round(mean, 2):
                return f"{one.reason} ({one.by}, {one.date})"
        return ""


def read_curves(path: Path) -> Curves:
    """Read official_curves.json.

    Raises:
        ConfigError: If it is not of that shape, naming the key.
        DataError: If it is no JSON.
    """
    return parse(Curves, read_json(path), str(path))


def read_explanations(path: Path) -> Explanations:
    """Read explanations.yaml.

    Raises:
        ConfigError: If it cannot be read or is not of that shape, naming the key.
    """
    return parse(Explanations, read_yaml(path), str(path))


def curve_of(curves: Curves, params: Params, spec: RunSpec) -> Curve | None:
    """The authors' curve of the recipe that a run follows, or None."""
    kind = params.datasets[spec.dataset].kind
    return next((c for c in curves.runs if c.is_recipe_of(kind, spec)), None)
