"""Whether the entries of params.yaml fit each other: names, sizes, banks and overrides."""

from collections.abc import Iterable, Mapping
from typing import Any

from clsp.config.catalog import dataset_info
from clsp.config.chain import check_groups, check_own_pairs, check_pairs
from clsp.config.comparison import check_comparison
from clsp.config.denoisers import DenoiserSpec
from clsp.config.drawing import check_bank
from clsp.config.foreign import check_imported
from clsp.config.grid import expand_runs, matches
from clsp.config.measured import check_quality
from clsp.config.schema import FIGURES, TABLES, GridEntry, Params
from clsp.config.variation import check_varied
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import nearest, require

AXES = ("dataset", "encoder", "method", "positives")


def _known(name: str, known: Mapping[str, Any] | Iterable[str], where: str, kind: str) -> None:
    if name not in known:
        listed = ", ".join(known) or "none"
        raise ConfigError(
            f'{where}: unknown {kind} "{name}"{nearest(name, known)}; known: {listed}'
        )


def _check_denoisers(params: Params) -> None:
    """Image sizes and banks that would only fail once a denoiser is trained."""
    for name, denoiser in params.denoisers.items():
        if not isinstance(denoiser, DenoiserSpec):
            continue  # its network is not known yet; import-denoiser judges it
        try:
            denoiser.check_size(params.datasets[denoiser.dataset].size)
        except ConfigError as error:
            raise ConfigError(f"denoisers.{name}: {error}") from None
    for name in params.banks:
        check_bank(params, name)


def _check_recipe(params: Params, name: str) -> None:
    """A method that some run uses fits the batch size and length of its recipe."""
    entry = params.methods[name]
    recipe, settings = params.recipes[entry.recipe], entry.settings()
    try:
        settings.check_batch(recipe.batch_size)
        settings.check_epochs(recipe.epochs)
    except ValueError as error:
        raise ConfigError(f"methods.{name}: {error} (recipes.{entry.recipe})") from None


def _section(params: Params, axis: str) -> Mapping[str, Any]:
    return getattr(params, axis if axis == "positives" else f"{axis}s")


def _check_sources(params: Params) -> None:
    """A source that reads a bank or pairs names them, and no other does."""
    for name, entry in params.positives.items():
        reads = entry.settings().reads
        for kind, given in (("bank", entry.bank), ("pairs", entry.pairs)):
            where, noun = f"positives.{name}.{kind}", "a bank" if kind == "bank" else "pairs"
            if reads == kind and given is None:
                raise ConfigError(f'{where}: source "{entry.source}" needs the name of {noun}')
            if given is not None and reads != kind:
                raise ConfigError(
                    f'{where}: source "{entry.source}" reads no {kind}, found "{given}"'
                )


def _check_banks(params: Params, where: str, grid: GridEntry) -> None:
    for positives in grid.positives:
        template = params.positives[positives].bank
        for dataset in grid.dataset if template else ():
            bank = template.format(dataset=dataset)
            _known(bank, params.banks, f"positives.{positives}.bank", "bank")
            owner = params.banks[bank].dataset
            if not params.datasets[owner].shows_images_of(params.datasets[dataset]):
                raise ConfigError(
                    f'{where}: bank "{bank}" belongs to dataset "{owner}", but the runs train on '
                    f'"{dataset}", which holds other images'
                )
            held = params.banks[bank].candidates
            used = params.positives[positives].options.get("candidates", held)
            if used > held:
                raise ConfigError(
                    f"positives.{positives}.candidates: {used} exceeds the {held} candidates of "
                    f"bank {bank}"
                )


def _check_single_label(params: Params, where: str, dataset: str) -> None:
    for name in dict.fromkeys((dataset, params.datasets[dataset].judged_on or dataset)):
        kind = params.datasets[name].kind
        if dataset_info(kind).multilabel:
            raise ConfigError(
                f'{where}: "{name}" of kind {kind} is multi-label; it can stand in '
                "evaluation.transfer.datasets, but runs cannot train on it"
            )


def _check_trained(params: Params, where: str, grid: GridEntry) -> None:
    """Runs train and are judged on datasets whose images have at most one label."""
    for dataset in grid.dataset:
        _check_single_label(params, f"{where}.dataset", dataset)


def _check_overrides(params: Params) -> None:
    """Every override names axes that exist, speaks of some run and changes it."""
    for position, override in enumerate(params.overrides):
        for axis in AXES:
            if (value := getattr(override, axis)) is not None:
                _known(value, _section(params, axis), f"overrides.{position}.{axis}", axis)
    runs = expand_runs(params)
    for position, override in enumerate(params.overrides):
        if not any(matches(override, run.axes) for run in runs.values()):
            raise ConfigError(f"overrides.{position}: matches no run: {override.canonical()}")
        others = params.overrides[:position] + params.overrides[position + 1 :]
        if expand_runs(params.model_copy(update={"overrides": others})) == runs:
            raise ConfigError(f"overrides.{position}: changes no run: {override.canonical()}")


def _check_plugins(params: Params) -> None:
    for section, package in (("tables", TABLES), ("figures", FIGURES)):
        for name in getattr(params, section):
            try:
                require(package, name, section[:-1])
            except ConfigError as error:
                raise ConfigError(f"{section}: {error}") from None


def check_references(params: Params) -> None:
    """Check every reference between entries.

    Raises:
        ConfigError: Naming the key path, the value and what exists.
    """
    for name, dataset in params.datasets.items():
        if dataset.judged_on is not None:
            _known(dataset.judged_on, params.datasets, f"datasets.{name}.judged_on", "dataset")
    for name, denoiser in params.denoisers.items():
        _known(denoiser.dataset, params.datasets, f"denoisers.{name}.dataset", "dataset")
    for name, bank in params.banks.items():
        _known(bank.denoiser, params.denoisers, f"banks.{name}.denoiser", "denoiser")
        _known(bank.dataset, params.datasets, f"banks.{name}.dataset", "dataset")
    for name, pairs in (params.pairs or {}).items():
        _known(pairs.dataset, params.datasets, f"pairs.{name}.dataset", "dataset")
    for name, entry in (params.imported or {}).items():
        _known(entry.dataset, params.datasets, f"imported.{name}.dataset", "dataset")
        _known(entry.encoder, params.encoders, f"imported.{name}.encoder", "encoder")
        _check_single_label(params, f"imported.{name}.dataset", entry.dataset)
    _check_denoisers(params)
    for name, method in params.methods.items():
        _known(method.recipe, params.recipes, f"methods.{name}.recipe", "recipe")
    _check_sources(params)
    for name, grid in params.runs.items():
        for axis in AXES:
            for value in getattr(grid, axis):
                _known(value, _section(params, axis), f"runs.{name}.{axis}", axis)
        for method in grid.method:
            _check_recipe(params, method)
        _check_trained(params, f"runs.{name}", grid)
        _check_banks(params, f"runs.{name}", grid)
        check_own_pairs(params, f"runs.{name}", grid)
        check_groups(params, f"runs.{name}", grid)
        check_varied(params, name, grid)
    if params.evaluation.transfer:
        for task in params.evaluation.transfer.datasets:
            _known(task, params.datasets, "evaluation.transfer.datasets", "dataset")
    _check_plugins(params)
    check_pairs(params)
    check_comparison(params)
    check_imported(params)
    check_quality(params)
    _check_overrides(params)
