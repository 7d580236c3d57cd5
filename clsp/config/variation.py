"""What a grid may vary beside its axes (the ablations), and the banks that one of them needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from clsp.config.schema import BankSpec, GridEntry, Params, PositivesEntry
from clsp.runtime.errors import ConfigError


@dataclass(frozen=True)
class Varied:
    """How a varied value is written: in a run's folder and in its label."""

    folder: str
    symbol: str


VARIED = {
    "alignment_weight": Varied("lambda", "λ"),
    "candidates": Varied("k", "k"),
    "interpolation_weight": Varied("w", "w"),
}

Values = dict[str, float | int]


def number(value: float) -> str:
    """A value as names and labels print it: 0.5, 1, 0.05."""
    return f"{value:.12g}"


def suffix(values: Mapping[str, float]) -> str:
    """End of a run's name: ".lambda0.5.k2", or nothing without values."""
    return "".join(f".{VARIED[name].folder}{number(value)}" for name, value in values.items())


def spelled(values: Mapping[str, float]) -> str:
    """End of a label: ", λ = 0.5, k = 2", or nothing without values."""
    return "".join(f", {VARIED[name].symbol} = {number(value)}" for name, value in values.items())


def bank_with(bank: str, weight: float) -> str:
    """Name of the bank that differs from another in its interpolation weight alone."""
    return f"{bank}{suffix({'interpolation_weight': weight})}"


def usual_values(positives: PositivesEntry, bank: BankSpec | None, weight: float) -> Values:
    """What the entries of params.yaml say about everything that a grid could vary for a run.

    Args:
        positives: Where the run's positives come from.
        bank: The bank they are read from, or None.
        weight: Alignment weight by method and overrides.

    Returns:
        By name, in the order of VARIED; what a run does not have is left out.
    """
    values: Values = {} if positives.source == "none" else {"alignment_weight": weight}
    if bank is not None:
        values["candidates"] = positives.options.get("candidates", bank.candidates)
        if "interpolation_weight" in bank.options:
            values["interpolation_weight"] = bank.options["interpolation_weight"]
    return values


def varied_by(grid: GridEntry) -> dict[str, tuple[float | int, ...]]:
    """The values that a grid lists, by name."""
    return {name: values for name in VARIED if (values := getattr(grid, name)) is not None}


def with_derived_banks(params: Params) -> Params:
    """Add the banks that grids over the interpolation weight need; nothing if they are there.

    Entries that do not exist are passed over: clsp/config/references.py names them.

    Raises:
        ConfigError: If another bank has the name of a derived one.
    """
    banks = dict(params.banks)
    for name, grid in params.runs.items():
        weights = grid.interpolation_weight or ()
        for key, dataset, weight in product(grid.positives, grid.dataset, weights):
            entry = params.positives.get(key)
            base = entry.bank.format(dataset=dataset) if entry and entry.bank else ""
            usual = banks[base].options.get("interpolation_weight") if base in banks else None
            if usual in (None, weight):
                continue
            options = {**banks[base].options, "interpolation_weight": weight}
            derived = banks[base].model_copy(update={"options": options})
            if banks.setdefault(bank_with(base, weight), derived) != derived:
                raise ConfigError(
                    f"banks.{bank_with(base, weight)}: runs.{name}.interpolation_weight gives this "
                    f"name to bank {base} with weight {number(weight)}, but the entry says "
                    "otherwise; rename it"
                )
    return params.model_copy(update={"banks": banks})


def check_varied(params: Params, name: str, grid: GridEntry) -> None:
    """Refuse a grid that varies what some of its runs do not have.

    Raises:
        ConfigError: Naming runs.<name>.<value> and the positives that do not have it.
    """
    for axis, key, dataset in product(varied_by(grid), grid.positives, grid.dataset):
        entry = params.positives[key]
        bank = params.banks[entry.bank.format(dataset=dataset)] if entry.bank else None
        where = f"runs.{name}.{axis}"
        if axis not in usual_values(entry, bank, 0.0):
            if axis == "alignment_weight":
                lacks = "aligns nothing"
            elif bank is None:
                lacks = "reads no bank"
            else:
                lacks = f"reads a bank of the generator {bank.generator}, which has no such option"
            raise ConfigError(
                f'{where}: cannot be varied for positives "{key}", whose source "{entry.source}" '
                f"{lacks}; give those runs a grid of their own"
            )
        if axis == "candidates" and bank and max(grid.candidates or ()) > bank.candidates:
            raise ConfigError(
                f"{where}: {max(grid.candidates or ())} exceeds the {bank.candidates} candidates "
                f"of bank {entry.bank.format(dataset=dataset)}"
            )
