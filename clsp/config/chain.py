"""Pairs are mined from runs, and runs may train on pairs: what of that cannot be done."""

from collections.abc import Mapping
from difflib import get_close_matches

from clsp.config.grid import Run, expand_runs
from clsp.config.schema import GridEntry, Params
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import nearest

NEAREST = 3  # runs that a message names


def check_own_pairs(params: Params, where: str, grid: GridEntry) -> None:
    """Refuse runs that would read pairs that do not exist or pair another dataset's images.

    Raises:
        ConfigError: Naming the key and what was found.
    """
    pairs = params.pairs or {}
    for positives in grid.positives:
        template = params.positives[positives].pairs
        for dataset in grid.dataset if template else ():
            name = template.format(dataset=dataset)
            if name not in pairs:
                raise ConfigError(
                    f'positives.{positives}.pairs: unknown pairs "{name}"{nearest(name, pairs)}; '
                    f"known: {', '.join(pairs) or 'none'}"
                )
            owner = pairs[name].dataset
            if not params.datasets[owner].shows_images_of(params.datasets[dataset]):
                raise ConfigError(
                    f'{where}: pairs "{name}" belong to dataset "{owner}", but the runs train on '
                    f'"{dataset}", which holds other images'
                )


def check_groups(params: Params, where: str, grid: GridEntry) -> None:
    """Refuse runs whose positives need group ids on datasets that come without.

    Raises:
        ConfigError: Naming the grid, the positives and the dataset.
    """
    for positives in grid.positives:
        if not params.positives[positives].settings().uses_groups:
            continue
        for dataset in grid.dataset:
            entry = params.datasets[dataset]
            if entry.options.get("groups") is None:
                raise ConfigError(
                    f'{where}: positives "{positives}" (source '
                    f'"{params.positives[positives].source}") need group ids, but dataset '
                    f'"{dataset}" of kind {entry.kind} has none; an image_folder gets them from a '
                    "CSV named by its keys groups and group_column"
                )


def _refuse_circle(params: Params, runs: Mapping[str, Run], name: str) -> None:
    """Follow pairs to the run that judges them, to the pairs that it trains on, and so on."""
    chain: list[str] = []
    current: str | None = name
    while current is not None:
        if current in chain:
            links = [f"pairs {each} <- run {params.pairs[each].run}" for each in chain]
            raise ConfigError(
                f"pairs.{name}.run: nothing can be done first, because pairs and runs wait for "
                f"each other: {' <- '.join([*links, f'pairs {current}'])}"
            )
        chain.append(current)
        current = runs[params.pairs[current].run].spec.pairs


def check_pairs(params: Params) -> None:
    """Check which run every entry of `pairs` names, and that some run comes first.

    Raises:
        ConfigError: Naming the key path, the value and what exists.
    """
    if not params.pairs:
        return
    runs = expand_runs(params)
    for name, entry in params.pairs.items():
        if entry.run not in runs:
            raise ConfigError(
                f'pairs.{name}.run: no grid expands to a run "{entry.run}"; nearest of the '
                f"{len(runs)} runs: {', '.join(get_close_matches(entry.run, runs, NEAREST, 0))}"
            )
    for name in params.pairs:
        _refuse_circle(params, runs, name)
