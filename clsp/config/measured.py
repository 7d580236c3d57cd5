"""Which banks `quality:` measures, what each is called, and what cannot be measured."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from clsp.config.catalog import dataset_info
from clsp.config.foreign import expand_imported
from clsp.config.grid import expand_runs
from clsp.config.labels import MARK, bank_label_users
from clsp.config.quality import QualityEntry, QualitySpec
from clsp.config.sampling import MIDDLE
from clsp.config.schema import Params
from clsp.config.variation import VARIED, bases, number, same_but, value_of
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import nearest

NEAREST = 3  # encoders that a message names
SHARED = ("encoder", "inception", "anchors", "candidates", "near_copy", "seed")
SHOWN = {"interpolation_weight": "w", "share_anchor_noise": "shared anchor noise"}
TOLD = ("interpolation_weight", "mix_at", "guidance", "scheduler", "steps", "eta")


def measured_banks(params: Params) -> list[str]:
    """Banks whose quality is measured, in the order of params.yaml.

    Those that `quality.banks` names, or else those that runs read, and those that differ from one
    of them as `quality.vary` says.
    """
    quality = params.quality
    if quality is None:
        return []
    chosen = set(bases(params))
    if quality.banks is None:
        chosen |= {run.spec.bank for run in expand_runs(params).values() if run.spec.bank}
    for base in bases(params):
        for option, values in (quality.vary or {}).items():
            chosen |= set(line_of(params, base, option, params.banks, values))
    return [name for name in params.banks if name in chosen]


def line_of(
    params: Params,
    base: str,
    option: str,
    among: Iterable[str],
    values: Iterable[Any] | None = None,
) -> list[str]:
    """Banks that differ from one in an option alone, itself among them.

    Args:
        params: The validated parameters, with derived banks.
        base: The bank they are compared with.
        option: Of its generator.
        among: Names of the banks that are looked at.
        values: Only banks with one of these; None: with any.
    """
    wanted = None if values is None else list(values)
    bank = params.banks[base]
    return [
        name
        for name in among
        if same_but(option, bank, params.banks[name])
        and (wanted is None or value_of(params.banks[name], option) in wanted)
    ]


def quality_spec(params: Params, bank: str) -> QualitySpec:
    """What is measured of one bank."""
    quality: QualityEntry = params.quality
    fields = {name: getattr(quality, name) for name in SHARED}
    # A probe of banks takes the fixed rate: nothing is chosen for it.
    fixed = params.evaluation.linear.model_copy(update={"grid": None})
    probe = fixed if quality.label_agreement else None
    dataset = params.banks[bank].dataset
    return QualitySpec(**fields, bank=bank, dataset=dataset, label_agreement=probe)


def bank_label(params: Params, name: str) -> str:
    """What tables print: "digits.mix (w = 0.1, ddim, steps = 10, eta = 0.1)"."""
    bank = params.banks[name]
    parts = []
    for option in TOLD:
        value = value_of(bank, option)
        if value is None or (option, value) == ("mix_at", MIDDLE):
            continue
        word = SHOWN.get(option, VARIED[option].symbol if option in VARIED else option)
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        shown = f"{word} = {number(value)}" if plain else f"{word} {value}"
        parts.append(str(value) if option == "scheduler" else shown)
    if value_of(bank, "share_anchor_noise"):
        parts.append(SHOWN["share_anchor_noise"])
    mark = MARK if bank_uses_labels(params, name) else ""
    return f"{name} ({', '.join(parts)}){mark}"


def bank_uses_labels(params: Params, name: str) -> bool:
    """Whether the candidates of a bank were drawn with labels."""
    bank = params.banks[name]
    return bool(bank_label_users(bank, params.denoisers[bank.denoiser]))


def _check_network(params: Params, quality: QualityEntry) -> None:
    known = [*expand_runs(params), *expand_imported(params)]
    if quality.encoder is not None and quality.encoder not in known:
        close = get_close_matches(quality.encoder, known, NEAREST, 0)
        raise ConfigError(
            f'quality.encoder: no run and no imported encoder is called "{quality.encoder}"; '
            f"nearest of {len(known)}: {', '.join(close)}"
        )


def check_quality(params: Params) -> None:
    """Check what `quality` names.

    Raises:
        ConfigError: Naming the key path, the value and what exists.
    """
    quality = params.quality
    if quality is None:
        return
    for name in quality.banks or ():
        if name not in params.banks:
            raise ConfigError(
                f'quality.banks: unknown bank "{name}"{nearest(name, params.banks)}; known: '
                f"{', '.join(params.banks) or 'none'}"
            )
    measured = measured_banks(params)
    if not measured:
        raise ConfigError(
            "quality: no run reads a bank and quality.banks names none, so nothing can be measured"
        )
    _check_network(params, quality)
    for name in measured:
        bank = params.banks[name]
        if max(quality.candidates) > bank.candidates:
            raise ConfigError(
                f"quality.candidates: {max(quality.candidates)} exceeds the {bank.candidates} "
                f"candidates of bank {name}"
            )
        kind = params.datasets[bank.dataset].kind
        if quality.label_agreement and dataset_info(kind).multilabel:
            raise ConfigError(
                f'quality.label_agreement: images of dataset "{bank.dataset}" show several '
                "classes; the probe is defined for one"
            )
