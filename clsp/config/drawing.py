"""Whether a bank can be drawn from its denoiser: sizes, steps, blocks and classes."""

from clsp.config.catalog import dataset_info
from clsp.config.schema import BankSpec, Params
from clsp.runtime.errors import ConfigError


def _check_classes(params: Params, where: str, bank: BankSpec) -> None:
    """The anchors' classes are those that the denoiser was trained with."""
    names = (bank.dataset, params.denoisers[bank.denoiser].dataset)
    kinds = [params.datasets[name].kind for name in names]
    infos = [dataset_info(kind) for kind in kinds]
    for name, info in zip(names, infos, strict=True):
        if info.multilabel:
            raise ConfigError(
                f"{where}.dataset: generator {bank.generator} needs one class per image, but "
                f"dataset {name} is multi-label"
            )
    # Where the catalogue names no classes, the job compares their number.
    if infos[0].class_names != infos[1].class_names or kinds[0] != kinds[1]:
        raise ConfigError(
            f"{where}: generator {bank.generator} needs anchors of the classes that its denoiser "
            f"knows; dataset {names[0]} is of kind {kinds[0]}, denoiser {bank.denoiser} is trained "
            f"on dataset {names[1]} of kind {kinds[1]}"
        )


def check_bank(params: Params, name: str) -> None:
    """Refuse settings that would only fail once the denoiser is trained.

    Raises:
        ConfigError: Naming banks.<name> and what does not fit.
    """
    bank, where = params.banks[name], f"banks.{name}"
    denoiser = params.denoisers[bank.denoiser]
    sizes = [params.datasets[each].size for each in (bank.dataset, denoiser.dataset)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"{where}: dataset {bank.dataset} has size {sizes[0]}, but denoiser "
            f"{bank.denoiser} is trained on size {sizes[1]}"
        )
    settings = bank.settings()
    try:
        settings.check_denoiser(denoiser)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{where}: {error} (denoiser {bank.denoiser})") from None
    if settings.uses_labels:
        _check_classes(params, where, bank)
