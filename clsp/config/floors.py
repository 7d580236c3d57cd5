"""What encoders have to beat: an untrained encoder and the pixels themselves, judged like them."""

from dataclasses import dataclass
from typing import Literal

from clsp.config.evaluation import FeatureSpec, FewShotJobSpec, TransferSpec
from clsp.config.grid import expand_runs
from clsp.config.schema import Params
from clsp.config.tasks import few_shot_tasks

LABELS = {"random": "Random encoder", "pixels": "Raw pixels"}


@dataclass(frozen=True)
class Floor:
    """One floor of the tables in which runs of one dataset and encoder stand.

    Attributes:
        slug: Its name, and that of its folders.
        label: What tables print.
        dataset: Dataset of the runs beside it.
        encoder: Encoder of the runs beside it.
        seed: Of the untrained weights; 0 for pixels.
        run: Slug of the first run beside it. Its checkpoint before the first step is the untrained
            encoder, and its normalisation is used.
        features: How its features are made.
        transfer: How it is judged.
        few_shot: How it is judged with few labels, or None.
    """

    slug: str
    label: str
    dataset: str
    encoder: str
    seed: int
    run: str
    features: FeatureSpec
    transfer: TransferSpec
    few_shot: FewShotJobSpec | None


def _floor(
    params: Params, kind: Literal["random", "pixels"], place: tuple[str, str], seed: int, run: str
) -> Floor:
    judged = params.evaluation.transfer
    dataset, encoder = place
    slug = f"{dataset}.{encoder}.{kind}" + (f".s{seed}" if kind == "random" else "")
    features = FeatureSpec(run=slug, source=kind, mirrored=False, tasks=judged.datasets)
    transfer = TransferSpec(run=slug, datasets=judged.datasets, logistic=judged.logistic)
    single = few_shot_tasks(params)
    few_shot = (
        FewShotJobSpec(run=slug, datasets=single, few_shot=judged.few_shot) if single else None
    )
    return Floor(slug, LABELS[kind], dataset, encoder, seed, run, features, transfer, few_shot)


def expand_floors(params: Params) -> dict[str, Floor]:
    """Every floor by slug: an untrained encoder per dataset, encoder and seed; pixels once each.

    Floors come in the order of `evaluation.transfer.floors`, for the ordinary runs of params.yaml.
    """
    judged = params.evaluation.transfer
    if judged is None or not judged.floors:
        return {}
    first: dict[tuple[str, str], dict[int, str]] = {}
    for run in expand_runs(params).values():
        if not run.variation:
            place = str(run.axes["dataset"]), str(run.axes["encoder"])
            first.setdefault(place, {}).setdefault(int(run.axes["seed"]), run.slug)
    floors = []
    for kind in judged.floors:
        for place, runs in first.items():
            seeds = runs.items() if kind == "random" else [(0, next(iter(runs.values())))]
            floors += [_floor(params, kind, place, seed, run) for seed, run in seeds]
    return {floor.slug: floor for floor in floors}
