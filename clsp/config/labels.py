"""Which runs use labels in pretraining, and the mark that says so wherever they appear."""

from clsp.config.denoisers import AnyDenoiserSpec
from clsp.config.schema import (
    GENERATORS,
    METHODS,
    POSITIVES,
    BankSpec,
    MethodEntry,
    PairsSpec,
    PositivesEntry,
    RunSpec,
)
from clsp.runtime.registry import settings_class

MARK = " [labels]"  # at the end of a label
ENDING = ".labels"  # at the end of a run's name, and so of its folder and of its runs in MLflow


def spec_uses_labels(spec: RunSpec) -> dict[str, bool]:
    """Whether the method and the positive source of a run are given labels."""
    return {
        "method": settings_class(METHODS, spec.method).uses_labels,
        "positives": settings_class(POSITIVES, spec.positives).uses_labels,
    }


def bank_label_users(bank: BankSpec, denoiser: AnyDenoiserSpec | None) -> tuple[str, ...]:
    """Everything that brings labels into a bank, in words; nothing for a label-free bank.

    A denoiser that was trained with labels does, even where it is sampled from without them.
    """
    users = []
    if settings_class(GENERATORS, bank.generator).uses_labels:
        users.append(f'generator "{bank.generator}"')
    if denoiser is not None and denoiser.uses_labels:
        users.append(f'denoiser "{bank.denoiser}"')
    return tuple(users)


def label_users(
    method: MethodEntry,
    positives: PositivesEntry,
    bank: BankSpec | None,
    pairs: PairsSpec | None,
    denoiser: AnyDenoiserSpec | None = None,
) -> tuple[str, ...]:
    """Everything that brings labels into a run, in words; nothing for a label-free run.

    A bank does as `bank_label_users` says, for which its denoiser is needed too. Pairs do if the
    encoder that judged them was trained with labels.
    """
    users = []
    if settings_class(METHODS, method.method).uses_labels:
        users.append(f'method "{method.method}"')
    if settings_class(POSITIVES, positives.source).uses_labels:
        users.append(f'positive source "{positives.source}"')
    if bank:
        users += bank_label_users(bank, denoiser)
    if pairs and pairs.run.endswith(ENDING):
        users.append(f'run "{pairs.run}", which judges its pairs,')
    return tuple(users)
