"""What a grid may vary beside its axes (the ablations), and banks that differ in one option."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from clsp.config.sampling import ABSENT, FIXED_ETA
from clsp.config.schema import GENERATORS, BankSpec, GridEntry, Params, PositivesEntry
from clsp.config.strict import WORD, parse
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import nearest, settings_class


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

LONGEST = 60  # characters of a name


def number(value: float) -> str:
    """A value as names and labels print it: 0.5, 1, 0.05."""
    return f"{value:.12g}"


def suffix(values: Mapping[str, float]) -> str:
    """End of a run's name: ".lambda0.5.k2", or nothing without values."""
    return "".join(f".{VARIED[name].folder}{number(value)}" for name, value in values.items())


def spelled(values: Mapping[str, float]) -> str:
    """End of a label: ", λ = 0.5, k = 2", or nothing without values."""
    return "".join(f", {VARIED[name].symbol} = {number(value)}" for name, value in values.items())


def bank_with(bank: str, option: str, value: Any) -> str:
    """Name of the bank that differs from another in one option alone.

    The weight w gives "digits.mix.w0.3", other numbers "digits.mix.steps20", everything else
    "digits.mix.share_anchor_noise_true".
    """
    word = VARIED[option].folder if option in VARIED else option
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{bank}.{word}_{str(value).lower()}"
    return f"{bank}.{word}{number(value)}"


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


@dataclass(frozen=True)
class Wanted:
    """A bank that differs from an entry of `banks` in one option, and who asks for it."""

    key: str  # path in params.yaml
    base: str
    option: str
    value: Any


def _for_runs(params: Params) -> Iterator[Wanted]:
    """Banks of the weights that grids list, but for entries that do not exist.

    clsp/config/references.py names those.
    """
    option = "interpolation_weight"
    for name, grid in params.runs.items():
        for key, dataset, weight in product(
            grid.positives, grid.dataset, grid.interpolation_weight or ()
        ):
            entry = params.positives.get(key)
            base = entry.bank.format(dataset=dataset) if entry and entry.bank else ""
            if base in params.banks and option in params.banks[base].options:
                yield Wanted(f"runs.{name}.{option}", base, option, weight)


def banks_of_runs(params: Params) -> list[str]:
    """Banks that runs name, before any is varied, in the order of params.yaml."""
    named = {
        entry.bank.format(dataset=dataset)
        for grid in params.runs.values()
        for key, dataset in product(grid.positives, grid.dataset)
        if (entry := params.positives.get(key)) and entry.bank
    }
    return [name for name in params.banks if name in named]


def bases(params: Params) -> list[str]:
    """Banks that `quality` names, around which it varies options; none that does not exist."""
    if params.quality is None:
        return []
    if params.quality.banks is None:
        return banks_of_runs(params)
    return [name for name in params.quality.banks if name in params.banks]


def _for_quality(params: Params) -> Iterator[Wanted]:
    """Banks that `quality.vary` lists."""
    vary = (params.quality.vary if params.quality else None) or {}
    for base, (option, values) in product(bases(params), vary.items()):
        known = settings_class(GENERATORS, params.banks[base].generator).model_fields
        if option not in known:
            raise ConfigError(
                f'quality.vary.{option}: bank {base} of the generator "'
                f'{params.banks[base].generator}" has no such option{nearest(option, known)}; '
                f"its options: {', '.join(known)}"
            )
        for value in values:
            yield Wanted(f"quality.vary.{option}", base, option, value)


def _derive(bank: BankSpec, wanted: Wanted) -> BankSpec:
    """The bank with one option changed.

    Where a scheduler fixes eta (clsp/config/sampling.py), eta follows the scheduler.
    """
    options = {**bank.options, wanted.option: wanted.value}
    if wanted.option == "scheduler":
        options["eta"] = FIXED_ETA.get(wanted.value, bank.options.get("eta"))
    entry = {**bank.canonical(), "options": options}
    return parse(BankSpec, entry, f"{wanted.key}: {wanted.value!r} for bank {wanted.base}")


def same_but(option: str, one: BankSpec, other: BankSpec) -> bool:
    """Whether two banks differ at most in one option (of a scheduler: in eta too)."""
    left = {**one.canonical()["options"]}
    right = {**other.canonical()["options"]}
    for name in (option, *(["eta"] if option == "scheduler" else [])):
        left.pop(name, None)
        right.pop(name, None)
    rest = [{**bank.canonical(), "options": None} for bank in (one, other)]
    return rest[0] == rest[1] and left == right


def value_of(bank: BankSpec, option: str) -> Any:
    """The value of a generator's option, also where the entry leaves it at what absent means."""
    known = settings_class(GENERATORS, bank.generator).model_fields
    return bank.options.get(option, ABSENT.get(option) if option in known else None)


def with_derived_banks(params: Params) -> Params:
    """Add the banks that grids over the interpolation weight and `quality.vary` need.

    A value that the bank has anyway makes no other bank.

    Raises:
        ConfigError: If another bank has the name of a derived one, or an option cannot be varied.
    """
    banks = dict(params.banks)
    for wanted in (*_for_runs(params), *_for_quality(params)):
        base, value = banks[wanted.base], wanted.value
        if value == value_of(base, wanted.option):
            continue
        derived, name = _derive(base, wanted), bank_with(wanted.base, wanted.option, value)
        if len(name) > LONGEST or not re.match(WORD, name):
            raise ConfigError(
                f'{wanted.key}: the bank would be called "{name}"; a name has at most {LONGEST} '
                "letters, digits, dots, dashes and underscores. Name it in banks"
            )
        if banks.setdefault(name, derived) != derived:
            shown = number(value) if isinstance(value, int | float) else value
            raise ConfigError(
                f"banks.{name}: {wanted.key} gives this name to bank {wanted.base} with "
                f"{wanted.option} {shown}, but the entry says otherwise; rename it"
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
