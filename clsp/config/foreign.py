"""Imported encoders among what is judged: what each is read from, and by what it is judged."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clsp.config.denoisers import ImportedDenoiserSpec, Sha256
from clsp.config.evaluation import (
    FeatureSpec,
    FewShotJobSpec,
    FineTuneJobSpec,
    ProbeSpec,
    TransferSpec,
)
from clsp.config.grid import expand_runs, judging
from clsp.config.imported import ImportedEncoderEntry
from clsp.config.labels import ENDING, MARK
from clsp.config.recipe import Normalisation
from clsp.config.schema import EncoderSpec, Params
from clsp.config.strict import Name, PositiveInt, Strict, Text
from clsp.runtime.errors import ConfigError

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")  # diffusers' names
METHOD = "imported"  # in the column of the frame that names a run's method


class ImportedEncoderSpec(Strict):
    """One checkpoint that becomes an encoder of the suite; see ImportedEncoderEntry."""

    dataset: Name
    normalisation: Normalisation | None = None
    encoder: EncoderSpec
    format: Literal["clsp", "torchvision"]
    path: Text
    sha256: Sha256 | None = None
    epochs: PositiveInt | None = None
    uses_labels: bool


@dataclass(frozen=True)
class Imported:
    """One imported encoder and how it is judged: as runs of its dataset and encoder are.

    Attributes:
        slug: Its name, and that of its folders.
        label: What tables print.
        dataset: Dataset of the runs beside it.
        encoder: Encoder of the runs beside it.
        spec: What it is read from.
        probe: How it is judged on its own dataset.
        features: What its features are extracted from.
        transfer: How it is judged on others, or None.
        few_shot: How it is judged on others with few labels, or None.
        fine_tune: How it is fine-tuned on others, or None.
    """

    slug: str
    label: str
    dataset: str
    encoder: str
    spec: ImportedEncoderSpec
    probe: ProbeSpec
    features: FeatureSpec
    transfer: TransferSpec | None
    few_shot: FewShotJobSpec | None
    fine_tune: FineTuneJobSpec | None

    @property
    def judged_on(self) -> str:
        """Dataset of the linear probe and kNN."""
        return self.features.own or self.dataset


def _imported(params: Params, name: str, entry: ImportedEncoderEntry) -> Imported:
    slug, judged = name + (ENDING if entry.uses_labels else ""), params.evaluation
    spec = ImportedEncoderSpec(
        dataset=entry.dataset,
        normalisation=entry.normalisation or params.datasets[entry.dataset].normalisation,
        encoder=params.encoders[entry.encoder],
        format=entry.format,
        path=entry.path,
        sha256=entry.sha256,
        epochs=entry.epochs,
        uses_labels=entry.uses_labels,
    )
    rate = entry.linear_learning_rate or judged.linear.learning_rate
    linear = judged.linear.model_copy(update={"learning_rate": rate})
    probe = ProbeSpec(run=slug, linear=linear, knn=judged.knn, seed=judged.seed)
    label = entry.label + (MARK if entry.uses_labels else "")
    others = judging(params, slug, entry.dataset)
    return Imported(slug, label, entry.dataset, entry.encoder, spec, probe, *others)


def expand_imported(params: Params) -> dict[str, Imported]:
    """Every imported encoder by slug, in the order of params.yaml."""
    entries = params.imported or {}
    found = [_imported(params, name, entry) for name, entry in entries.items()]
    return {each.slug: each for each in found}


def denoiser_files(spec: ImportedDenoiserSpec) -> list[str]:
    """The files that a denoiser is imported from, there or not.

    A folder of diffusers is a pipeline (unet/, scheduler/, model_index.json) or a model alone, as
    google/ddpm-cifar10-32 is. Of two files with weights safetensors are read.
    """
    if spec.format == "clsp":
        return [spec.path]
    folder = Path(spec.path)
    pipeline = (folder / "unet").is_dir()
    model = folder / "unet" if pipeline else folder
    schedule = folder / "scheduler" if pipeline else folder
    weights = [model / name for name in WEIGHTS]
    chosen = next((path for path in weights if path.exists()), weights[0])
    found = [model / "config.json", schedule / "scheduler_config.json", chosen]
    index = folder / "model_index.json"
    return [str(path) for path in [*found, *([index] if index.exists() else [])]]


def check_imported(params: Params) -> None:
    """Refuse imported encoders that would share a folder or a row with something else.

    Names of datasets and encoders are known to exist.

    Raises:
        ConfigError: Naming the entry, the value and what has it already.
    """
    if not params.imported:
        return
    if METHOD in params.methods:
        raise ConfigError(
            f"methods.{METHOD}: this name stands for imported encoders in the frame; rename it"
        )
    runs = expand_runs(params)
    places = {
        (str(run.axes["dataset"]), str(run.axes["encoder"]), label): run.slug
        for run in runs.values()
        for label in run.names
    }
    for name, entry in params.imported.items():
        made = _imported(params, name, entry)
        if made.slug in runs:
            raise ConfigError(f"imported.{name}: a run has the name {made.slug}; rename the entry")
        place = (made.dataset, made.encoder, made.label)
        owner = places.setdefault(place, made.slug)
        if owner != made.slug:
            raise ConfigError(
                f'imported.{name}.label: tables would print "{made.label}" for this and for '
                f"{owner} on {made.dataset}, {made.encoder}; change the label"
            )
        if entry.uses_labels and params.comparison.labels == "refused":
            raise ConfigError(
                f'imported.{name}: uses labels, which "comparison: {{labels: refused}}" keeps out; '
                f'leave it out, or write "comparison: {{labels: marked}}", and its label ends in '
                f'"{MARK.strip()}" everywhere'
            )
