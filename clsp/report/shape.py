"""The outer shape of a manifest: what report and audit read without asking again."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Shape(BaseModel):
    """Types as JSON has them; fields beyond those named here are left alone."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Digest(Shape):
    """Digests of one file."""

    sha256: str


def _below(name: str) -> str:
    """A name of a file below its artefact's folder."""
    parts = name.split("/")
    if "\0" in name or not all(parts) or {".", ".."} & set(parts):
        raise ValueError(f"{name[:80]!r} is no file below the artefact's folder")
    return name


Below = Annotated[str, AfterValidator(_below)]


class Subject(Shape):
    """One file of the artefact."""

    name: Below
    digest: Digest
    size: int


class Dependency(Shape):
    """One file that the artefact was made from."""

    name: str
    uri: str
    digest: Digest


class Predictions(Shape):
    """Where a result's predictions are: logits, or predicted classes."""

    file: Below
    logits: str = ""
    predicted: str = ""
    labels: str
    rows: str


class Result(Shape):
    """One number of a probe."""

    task: str
    protocol: str
    variant: str
    metric: str
    value: Finite
    correct: int
    total: int
    per_class: list[list[int]]
    split: str
    selected_on: str
    epoch: int | None
    selection: dict[str, Any]
    predictions: Predictions


class Facts(Shape):
    """What a stage tells beside its metrics."""

    results: list[Result] = []
    terms: list[str] = []
    table: str = ""


class Settings(Shape):
    """What the job was asked for."""

    spec: dict[str, Any]
    spec_sha256: str | None = None


class Environment(Shape):
    """What the job ran on."""

    code: str
    git_commit: str | None = None
    versions: dict[str, str] = {}


class Details(Shape):
    """When the job ran."""

    started: str
    seconds: Finite


class Predicate(Shape):
    """Everything recorded about the job."""

    step: str
    status: str
    external_parameters: Settings = Field(alias="externalParameters")
    internal_parameters: Environment = Field(alias="internalParameters")
    run_details: Details = Field(alias="runDetails")
    dependencies: list[Dependency] = Field(alias="resolvedDependencies")
    metrics: dict[str, Finite | None]
    counters: dict[str, Finite]
    facts: Facts
    tracking: bool = False
    mlflow_run_id: str | None = None


class Statement(Shape):
    """A whole manifest: each file once, and results that point to some of them."""

    subject: list[Subject]
    predicate: Predicate

    @model_validator(mode="after")
    def _own_files(self) -> Self:
        names = [subject.name for subject in self.subject]
        if len(set(names)) < len(names):
            raise ValueError("subject: a file is named twice")
        read = {result.predictions.file for result in self.predicate.facts.results}
        if absent := sorted(read - set(names)):
            raise ValueError(f"predictions are read from {absent[0]}, which is no subject")
        return self


def misshapen(statement: Any) -> str:
    """The first place where a parsed manifest has another shape, or nothing."""
    try:
        Statement.model_validate(statement)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'manifest'}: {first['msg']}"
    return ""
