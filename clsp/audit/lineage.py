"""What a run or a floor was made from, through banks, pairs and the runs that judged those."""

from collections.abc import Mapping

from clsp.config.floors import Floor
from clsp.config.foreign import Imported, expand_imported
from clsp.config.grid import Run
from clsp.config.plan import denoiser_job
from clsp.config.schema import Params
from clsp.report.records import SHARD

Producer = tuple[str, str]  # stage, name


def _of_dataset(name: str) -> set[Producer]:
    return {("fetch-dataset", name), ("prepare-dataset", name)}


def _of_bank(params: Params, name: str) -> set[Producer]:
    bank = params.banks[name]
    denoiser = params.denoisers[bank.denoiser]
    maker = denoiser_job(params, bank.denoiser).stage
    made = {(maker, bank.denoiser), (SHARD, name), ("gather-bank", name)}
    return made | _of_dataset(bank.dataset) | _of_dataset(denoiser.dataset)


def made_from(params: Params, runs: Mapping[str, Run], slug: str) -> frozenset[Producer]:
    """Every artefact behind the encoder of a run, the encoder itself among them."""
    spec = runs[slug].spec
    found = {("pretrain-encoder", slug)} | _of_dataset(spec.dataset)
    if spec.bank:
        found |= _of_bank(params, spec.bank)
    if spec.pairs:
        pairs = params.pairs[spec.pairs]
        found |= {("mine-pairs", spec.pairs)} | _of_dataset(pairs.dataset)
        found |= made_from(params, runs, pairs.run)  # params.yaml with a circle is refused
    return frozenset(found)


def import_from(imported: Imported) -> frozenset[Producer]:
    """Every artefact behind an imported encoder; its dataset gives the statistics of its inputs."""
    made = {("import-encoder", imported.slug)}
    return frozenset(made | _of_dataset(imported.dataset))


def bank_from(params: Params, runs: Mapping[str, Run], bank: str) -> frozenset[Producer]:
    """Every artefact behind the quality figures of a bank, the encoder that looked among them."""
    imported, slug = expand_imported(params), params.quality.encoder
    looked = import_from(imported[slug]) if slug in imported else frozenset()
    if slug in runs:
        looked = made_from(params, runs, slug)
    return looked | {("measure-bank", bank)} | _of_bank(params, bank)


def floor_from(floor: Floor, runs: Mapping[str, Run]) -> frozenset[Producer]:
    """Every artefact behind a floor: of an untrained encoder the run that kept its weights.

    They were drawn before the first step, so that no bank and no pairs had a part in them.
    """
    if floor.features.source == "pixels":
        return frozenset()
    return frozenset({("pretrain-encoder", floor.run)} | _of_dataset(runs[floor.run].spec.dataset))
