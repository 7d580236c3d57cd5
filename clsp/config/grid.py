"""params.yaml -> the flat list of jobs: {slug: spec}, one per dataset, denoiser, bank and run."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from clsp.config.evaluation import (
    FeatureSpec,
    FewShotJobSpec,
    FineTuneJobSpec,
    ProbeSpec,
    TransferSpec,
)
from clsp.config.labels import ENDING, MARK, label_users
from clsp.config.schema import GridEntry, MethodEntry, Override, Params, PositivesEntry, RunSpec
from clsp.config.strict import parse
from clsp.config.tasks import few_shot_tasks
from clsp.config.variation import Values, bank_with, spelled, suffix, usual_values, varied_by
from clsp.runtime.errors import ConfigError

AXES = ("dataset", "encoder", "method", "positives", "seed")


@dataclass(frozen=True)
class Run:
    """One pretraining run and how it is judged.

    Attributes:
        slug: Its name, and that of its folders.
        axes: The names in params.yaml that it was put together from, and its seed.
        plain: What method and positives are called together.
        spec: How it is pretrained.
        probe: How it is judged on its own dataset.
        features: What its features are extracted from.
        transfer: How it is judged on others, or None.
        few_shot: How it is judged on others with few labels, or None.
        fine_tune: How it is fine-tuned on others, or None.
        values: Everything that a grid could vary for this run.
        variation: Those of them that differ from what the entries say; empty for an ordinary run.
        label_users: What brings labels into it, in words; empty for a label-free run.
    """

    slug: str
    axes: dict[str, str | int]
    plain: str
    spec: RunSpec
    probe: ProbeSpec
    features: FeatureSpec
    transfer: TransferSpec | None
    few_shot: FewShotJobSpec | None
    fine_tune: FineTuneJobSpec | None
    values: Values
    variation: Values
    label_users: tuple[str, ...]

    @property
    def judged_on(self) -> str:
        """Dataset of the linear probe and kNN."""
        return self.features.own or self.spec.dataset

    @property
    def label(self) -> str:
        """What tables print: "CLSP-SimCLR, λ = 0.5"."""
        return self._labelled(self.variation)

    def label_along(self, name: str) -> str:
        """What an ablation prints: the value it is about stands there for an ordinary run too."""
        return self._labelled(self.spelled_along(name))

    def label_beside(self, name: str) -> str:
        """What runs have in common that differ in this value alone."""
        return self._labelled({k: v for k, v in self.variation.items() if k != name})

    def spelled_along(self, name: str) -> Values:
        """The values that `label_along` spells out."""
        return {k: v for k, v in self.values.items() if k in self.variation or k == name}

    @property
    def names(self) -> dict[str, Values]:
        """Every label under which some table shows the run, with the values it spells out."""
        along = {self.label_along(name): self.spelled_along(name) for name in self.values}
        return {self.label: self.variation, **along}

    def _labelled(self, values: Values) -> str:
        return f"{self.plain}{spelled(values)}{MARK if self.label_users else ''}"


def label_of(method: MethodEntry, positives: PositivesEntry) -> str:
    """What tables print: "SimCLR", "SimCLR-aug", "CLSP-SimCLR"."""
    return positives.label.format(method=method.label)


def matches(override: Override, axes: dict[str, str | int]) -> bool:
    """Whether an override speaks of the run with these axes."""
    fields = override.canonical()
    return all(fields[key] == axes[key] for key in fields.keys() & axes.keys())


def _merged(overrides: tuple[Override, ...], axes: dict[str, str | int]) -> dict[str, float]:
    values: dict[str, float] = {}
    for override in overrides:
        if matches(override, axes):
            fields = override.canonical()
            values.update({key: fields[key] for key in fields.keys() - axes.keys()})
    return values


def _pretraining(params: Params, axes: dict[str, str | int], changed: Values) -> dict[str, Any]:
    """The RunSpec of a run before anything is varied, as plain fields."""
    method = params.methods[str(axes["method"])]
    positives = params.positives[str(axes["positives"])]
    recipe, dataset = params.recipes[method.recipe], params.datasets[str(axes["dataset"])]
    constants = recipe.normalisation or {}
    weight = changed.get("alignment_weight", method.alignment_weight)
    return {
        "dataset": axes["dataset"],
        "normalisation": constants.get(str(axes["dataset"]), dataset.normalisation),
        "encoder": params.encoders[str(axes["encoder"])],
        "method": method.method,
        "method_options": method.options,
        "positives": positives.source,
        "positives_options": positives.options,
        "bank": positives.bank and positives.bank.format(dataset=axes["dataset"]),
        "pairs": positives.pairs and positives.pairs.format(dataset=axes["dataset"]),
        "alignment_weight": 0.0 if positives.source == "none" else weight,
        "recipe": recipe.model_copy(update={"normalisation": None}),
        "execution": params.execution,
        "seed": axes["seed"],
    }


def _vary(pretraining: dict[str, Any], variation: Values) -> dict[str, Any]:
    """The same fields with the varied values in their places."""
    varied = dict(pretraining)
    if "alignment_weight" in variation:
        varied["alignment_weight"] = variation["alignment_weight"]
    if "candidates" in variation:
        options = {"candidates": variation["candidates"]}
        varied["positives_options"] = {**pretraining["positives_options"], **options}
    if "interpolation_weight" in variation:
        weight = variation["interpolation_weight"]
        varied["bank"] = bank_with(pretraining["bank"], "interpolation_weight", weight)
    return varied


def judging(
    params: Params, slug: str, dataset: str
) -> tuple[FeatureSpec, TransferSpec | None, FewShotJobSpec | None, FineTuneJobSpec | None]:
    """How an encoder is judged beyond its own dataset, and what features that takes.

    Args:
        params: The validated parameters.
        slug: Of the run or imported encoder.
        dataset: That it was pretrained on.
    """
    judged = params.evaluation.transfer
    features = FeatureSpec(
        run=slug,
        source="encoder",
        own=params.datasets[dataset].judged_on or dataset,
        mirrored=params.evaluation.linear.flip,
        tasks=judged.datasets if judged else (),
    )
    if judged is None:
        return features, None, None, None
    about: dict[str, Any] = {"run": slug, "datasets": judged.datasets}
    single = few_shot_tasks(params)
    return (
        features,
        TransferSpec(**about, logistic=judged.logistic),
        FewShotJobSpec(run=slug, datasets=single, few_shot=judged.few_shot) if single else None,
        judged.fine_tune and FineTuneJobSpec(**about, fine_tune=judged.fine_tune),
    )


def _run(params: Params, axes: dict[str, str | int], given: Values) -> Run:
    """One run; `given` are the values that its grid varies."""
    method = params.methods[str(axes["method"])]
    positives = params.positives[str(axes["positives"])]
    changed = _merged(params.overrides, axes)
    pretraining = _pretraining(params, axes, changed)
    bank = params.banks.get(pretraining["bank"])
    usual = usual_values(positives, bank, pretraining["alignment_weight"])
    values = usual | given
    variation = {name: value for name, value in values.items() if value != usual.get(name)}
    pairs = (params.pairs or {}).get(pretraining["pairs"])
    denoiser = params.denoisers.get(bank.denoiser) if bank else None
    users = label_users(method, positives, bank, pairs, denoiser)
    slug = "{dataset}.{encoder}.{method}.{positives}.s{seed}".format(**axes)
    slug += suffix(variation) + (ENDING if users else "")
    spec = parse(RunSpec, _vary(pretraining, variation), f"run {slug}")
    judged = params.evaluation
    rate = changed.get("linear_learning_rate", judged.linear.learning_rate)
    linear = judged.linear.model_copy(update={"learning_rate": rate})
    probing = {"run": slug, "linear": linear, "knn": judged.knn, "seed": judged.seed}
    probe = parse(ProbeSpec, probing, f"run {slug}")
    plain = label_of(method, positives)
    others = judging(params, slug, str(axes["dataset"]))
    return Run(slug, axes, plain, spec, probe, *others, values, variation, users)


def _claim(runs: dict[str, Run], labels: dict[str, tuple[str, str, str]], run: Run) -> None:
    """Add a run, and refuse names that would make two different runs one in a folder or table."""
    known = runs.setdefault(run.slug, run)
    if (known.axes, known.variation) != (run.axes, run.variation):
        raise ConfigError(
            f'runs: two runs would share the folder "{run.slug}": {known.axes | known.variation} '
            f"and {run.axes | run.variation}; rename an entry"
        )
    for label, values in run.names.items():
        mine = (str(run.axes["method"]), str(run.axes["positives"]), spelled(values))
        owner = labels.setdefault(label, mine)
        if owner != mine:
            raise ConfigError(
                f'runs: tables would print "{label}" for method {owner[0]} with positives '
                f"{owner[1]}{owner[2]} and for method {mine[0]} with positives {mine[1]}{mine[2]}; "
                "change a label"
            )


def grid_runs(params: Params, grid: GridEntry) -> Iterator[Run]:
    """The runs of one grid, in the order written."""
    varied = varied_by(grid)
    for point in product(*(getattr(grid, axis) for axis in AXES)):
        axes = dict(zip(AXES, point, strict=True))
        for values in product(*varied.values()):
            yield _run(params, axes, dict(zip(varied, values, strict=True)))


# What was expanded last: while Snakemake parses, the same parameters are asked for dozens of times.
_RECENT: deque[tuple[Params, dict[str, Run]]] = deque(maxlen=4)


def expand_runs(params: Params) -> dict[str, Run]:
    """Every run of every grid, by slug, in the order written. Grids that meet share the run.

    Raises:
        ConfigError: If there is no run at all, or two different ones have one name or label.
    """
    for known, expanded in list(_RECENT):
        if known is params:  # which cannot change
            return dict(expanded)
    runs: dict[str, Run] = {}
    labels: dict[str, tuple[str, str, str]] = {}
    for grid in params.runs.values():
        for run in grid_runs(params, grid):
            _claim(runs, labels, run)
    if not runs:
        raise ConfigError("runs: no grid is given, so there is nothing to do")
    _RECENT.append((params, runs))
    return dict(runs)
