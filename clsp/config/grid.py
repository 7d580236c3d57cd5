"""params.yaml -> the flat list of jobs: {slug: spec}, one per dataset, denoiser, bank and run."""

from dataclasses import dataclass
from itertools import product

from clsp.config.evaluation import ProbeSpec, TransferSpec
from clsp.config.schema import MethodEntry, Override, Params, PositivesEntry, RunSpec
from clsp.config.strict import parse
from clsp.runtime.errors import ConfigError


@dataclass(frozen=True)
class Run:
    """One pretraining run and how it is judged. `axes` are the names in params.yaml."""

    slug: str
    axes: dict[str, str | int]
    label: str
    spec: RunSpec
    probe: ProbeSpec
    transfer: TransferSpec | None


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


def _run(params: Params, axes: dict[str, str | int]) -> Run:
    slug = "{dataset}.{encoder}.{method}.{positives}.s{seed}".format(**axes)
    method = params.methods[str(axes["method"])]
    positives = params.positives[str(axes["positives"])]
    changed = _merged(params.overrides, axes)
    weight = changed.get("alignment_weight", method.alignment_weight)
    pretraining = {
        "dataset": axes["dataset"],
        "normalisation": params.datasets[str(axes["dataset"])].normalisation,
        "encoder": params.encoders[str(axes["encoder"])],
        "method": method.method,
        "method_options": method.options,
        "positives": positives.source,
        "positives_options": positives.options,
        "bank": positives.bank and positives.bank.format(dataset=axes["dataset"]),
        "alignment_weight": 0.0 if positives.source == "none" else weight,
        "recipe": params.recipes[method.recipe],
        "seed": axes["seed"],
    }
    spec = parse(RunSpec, pretraining, f"run {slug}")
    judged = params.evaluation
    rate = changed.get("linear_learning_rate", judged.linear.learning_rate)
    linear = judged.linear.model_copy(update={"learning_rate": rate})
    probing = {"run": slug, "linear": linear, "knn": judged.knn, "seed": judged.seed}
    probe = parse(ProbeSpec, probing, f"run {slug}")
    transfer = judged.transfer and TransferSpec(
        run=slug, datasets=judged.transfer.datasets, logistic=judged.transfer.logistic
    )
    return Run(slug, axes, label_of(method, positives), spec, probe, transfer)


def _claim(runs: dict[str, Run], labels: dict[str, tuple[str, str]], run: Run) -> None:
    """Add a run, and refuse names that would make two different runs one in a folder or table."""
    known = runs.setdefault(run.slug, run)
    if known.axes != run.axes:
        raise ConfigError(
            f'runs: two runs would share the folder "{run.slug}": {known.axes} and {run.axes}; '
            "rename an entry"
        )
    pair = (str(run.axes["method"]), str(run.axes["positives"]))
    owner = labels.setdefault(run.label, pair)
    if owner != pair:
        raise ConfigError(
            f'runs: tables would print "{run.label}" for method {owner[0]} with positives '
            f"{owner[1]} and for method {pair[0]} with positives {pair[1]}; change a label"
        )


def expand_runs(params: Params) -> dict[str, Run]:
    """Every run of every grid, by slug, in the order written. Grids that meet share the run.

    Raises:
        ConfigError: If there is no run at all, or two different ones have one name or label.
    """
    runs: dict[str, Run] = {}
    labels: dict[str, tuple[str, str]] = {}
    for grid in params.runs.values():
        for point in product(grid.dataset, grid.encoder, grid.method, grid.positives, grid.seed):
            axes = dict(
                zip(("dataset", "encoder", "method", "positives", "seed"), point, strict=True)
            )
            _claim(runs, labels, _run(params, axes))
    if not runs:
        raise ConfigError("runs: no grid is given, so there is nothing to do")
    return runs
