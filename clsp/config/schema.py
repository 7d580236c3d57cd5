"""The shape of params.yaml, and one Spec per kind of job.

A Spec is everything that decides a job's numbers and nothing else. Its canonical JSON is at once
the job's configuration, Snakemake's rerun trigger and the record in the manifest.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from clsp.config.denoisers import AnyDenoiserSpec
from clsp.config.evaluation import EvaluationEntry
from clsp.config.execution import Execution, ExecutionSpec
from clsp.config.imported import ImportedEncoderEntry
from clsp.config.plugin import Plugin
from clsp.config.quality import QualityEntry
from clsp.config.recipe import Normalisation, RecipeSpec
from clsp.config.strict import (
    Distinct,
    Fraction,
    Name,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Seed,
    Slug,
    Strict,
    Text,
)
from clsp.config.template import template_of

KINDS = "clsp.data.kinds"
GENERATORS = "clsp.synthesis.generators"
METHODS = "clsp.pretrain.methods"
POSITIVES = "clsp.pretrain.positives"
TABLES = "clsp.report.tables"
FIGURES = "clsp.report.figures"


class DatasetSpec(Plugin):
    """One dataset: how it is read, and the size it is stored at."""

    package = KINDS
    selector = "kind"
    kind: Name
    size: PositiveInt  # side of the square that networks see, pixels
    resize: PositiveInt | None = None  # shorter side before the centre is cut; None: size
    # arrays: pixels at `size`, in one memory-mapped file. encoded: image files as they are, in one
    # Arrow file; decoded when read, so that training crops come from all of their pixels.
    storage: Literal["arrays", "encoded"] | None = None  # None: arrays
    normalisation: Normalisation | None = None  # None: the prepared card's own statistics
    limit: PositiveInt | None = None  # at most so many images per split, drawn evenly by class
    # Dataset on which encoders pretrained on this one are judged: its labelled training images and
    # its test images. None: this one.
    judged_on: Name | None = None

    @model_validator(mode="after")
    def _check_resize(self) -> "DatasetSpec":
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"resize must not be below size {self.size}, found {self.resize}")
        return self

    @property
    def encoded(self) -> bool:
        """Whether images are stored as files and decoded when read."""
        return self.storage == "encoded"

    def shows_images_of(self, other: "DatasetSpec") -> bool:
        """Whether both entries hold the same images in the same order, at whatever size."""
        mine, theirs = ((d.kind, d.options, d.limit) for d in (self, other))
        return mine == theirs


class FetchSpec(Plugin):
    """What is downloaded or drawn for a dataset, whatever is then made of it."""

    package = KINDS
    selector = "kind"
    kind: Name

    @classmethod
    def behind(cls, dataset: DatasetSpec) -> "FetchSpec":
        """The files that a dataset is read from; how they are read is no part of it."""
        kept = ("source", "seed") if dataset.options["source"] == "miniature" else ("source",)
        options = {key: dataset.options[key] for key in kept}
        return cls(kind=dataset.kind, options=options)


class BankSpec(Plugin):
    """A bank of synthetic candidates drawn by one generator from one denoiser."""

    package = GENERATORS
    selector = "generator"
    generator: Name
    denoiser: Name
    dataset: Name  # whose training images are the anchors
    candidates: PositiveInt  # K
    seed: Seed


class EncoderSpec(Strict):
    """A torchvision ResNet with the stem of methods.md 1.1 and an adjustable width."""

    architecture: Literal["resnet18", "resnet50"]
    stem: Literal["small", "small_padding_2", "mid", "big"]
    width: PositiveInt  # channels of the first stage; 64 is torchvision's


class MethodEntry(Plugin):
    """A method, its recipe and the weight of the alignment term when a positive is given."""

    package = METHODS
    selector = "method"
    method: Name
    label: Text  # as tables print it
    recipe: Name
    alignment_weight: NonNegativeFloat  # lambda


class PairsSpec(Strict):
    """Pairs of training images that a frozen encoder holds to be alike (SePP, methods.md 2.14)."""

    dataset: Name  # whose training images are paired
    run: Slug  # of this suite, whose encoder judges; it may have been trained on another dataset
    neighbours: PositiveInt  # i and j pair up if each is among the other's so many nearest
    threshold: Annotated[float, Field(ge=-1, le=1)]  # least cosine of the features


class PositivesEntry(Plugin):
    """A positive source; the names of its bank or pairs may contain {dataset}."""

    package = POSITIVES
    selector = "source"
    source: Name
    # Pattern around the method's label, such as "CLSP-{method}".
    label: Annotated[Text, AfterValidator(template_of("method"))]
    bank: Annotated[Text, AfterValidator(template_of("dataset"))] | None = None
    pairs: Annotated[Text, AfterValidator(template_of("dataset"))] | None = None


class RunSpec(Strict):
    """One pretraining run."""

    dataset: Name
    normalisation: Normalisation | None = None
    encoder: EncoderSpec
    method: Name
    method_options: dict[str, Any]
    positives: Name
    positives_options: dict[str, Any]
    bank: Name | None = None
    pairs: Name | None = None
    alignment_weight: NonNegativeFloat
    recipe: RecipeSpec
    execution: ExecutionSpec | None = None  # None: exact
    seed: Seed

    @property
    def batch_norm(self) -> str:
        """Whose statistics batch norm takes where several processes share a batch.

        "synchronised": those of the whole batch; "per_device": of each process's part; "four_gpu":
        of each of four chunks of the batch, whatever the recipe says (clsp/pretrain/forward.py).
        """
        if self.method_options.get("forward") == "four_gpu":
            return "four_gpu"
        return self.recipe.batch_norm or "synchronised"


SomeNames = Annotated[tuple[Name, ...], Field(min_length=1), Distinct]
SomeSeeds = Annotated[tuple[Seed, ...], Field(min_length=1), Distinct]
SomeCounts = Annotated[tuple[PositiveInt, ...], Field(min_length=1), Distinct]
SomeWeights = Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1), Distinct]
SomeFractions = Annotated[tuple[Fraction, ...], Field(min_length=1), Distinct]


class GridEntry(Strict):
    """A grid of runs: the product of its axes. The last three vary an entry's value (ablations)."""

    dataset: SomeNames
    encoder: SomeNames
    method: SomeNames
    positives: SomeNames
    seed: SomeSeeds
    alignment_weight: SomeWeights | None = None
    candidates: SomeCounts | None = None
    interpolation_weight: SomeFractions | None = None


class ComparisonEntry(Strict):
    """What the tables of this file may set side by side."""

    recipes: Literal["single", "mixed"]  # mixed: several recipe families, and tables say so
    labels: Literal["refused", "marked"]  # marked: methods and sources may use labels, and say so


class Override(Strict):
    """Values that the authors changed for some runs; absent axes match everything."""

    dataset: Name | None = None
    encoder: Name | None = None
    method: Name | None = None
    positives: Name | None = None
    alignment_weight: NonNegativeFloat | None = None
    linear_learning_rate: PositiveFloat | None = None


class Params(Strict):
    """The whole of params.yaml."""

    profile: Name  # names the folders under results/ and reports/
    demonstration: bool  # true: every table, figure and page says that numbers are not results
    device: Literal["auto", "cpu", "cuda"]
    execution: Execution = None  # of pretraining; None: exact
    tracking: bool  # mirror into MLflow
    shards: PositiveInt  # jobs a bank is split into; changes no image
    datasets: dict[Name, DatasetSpec]
    denoisers: dict[Name, AnyDenoiserSpec]
    banks: dict[Name, BankSpec]
    encoders: dict[Name, EncoderSpec]
    recipes: dict[Name, RecipeSpec]
    methods: dict[Name, MethodEntry]
    positives: dict[Name, PositivesEntry]
    pairs: dict[Name, PairsSpec] | None = None
    imported: dict[Name, ImportedEncoderEntry] | None = None
    runs: dict[Name, GridEntry]
    comparison: ComparisonEntry
    overrides: tuple[Override, ...]
    evaluation: EvaluationEntry
    quality: QualityEntry | None = None  # None: banks are not measured
    tables: Annotated[tuple[Name, ...], Distinct]
    figures: Annotated[tuple[Name, ...], Distinct]

    @model_validator(mode="before")
    @classmethod
    def _name_plugins_by_their_key(cls, data: Any) -> Any:
        """`methods: simclr: {...}` means `method: simclr` unless the entry says otherwise."""
        if not isinstance(data, dict):
            raise ValueError("expected a mapping")
        data = dict(data)
        for section, selector in (("methods", "method"), ("positives", "source")):
            entries = data.get(section)
            if isinstance(entries, dict):
                data[section] = {
                    key: {selector: key, **entry} if isinstance(entry, dict) else entry
                    for key, entry in entries.items()
                }
        return data
