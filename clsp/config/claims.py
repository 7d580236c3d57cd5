"""The shape of reports/spec/claims.yaml: what the paper claims, as propositions with their tests.

The file is written before the runs that it judges; every pretraining run records its hash.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from clsp.config.load import read_yaml
from clsp.config.strict import (
    Distinct,
    Name,
    NonNegativeFloat,
    PositiveInt,
    Seed,
    Strict,
    Text,
    parse,
)
from clsp.runtime.errors import ConfigError

CLAIMS = Path("reports/spec/claims.yaml")
Names = Annotated[tuple[Name, ...], Field(min_length=1), Distinct]
Number = Annotated[float, Field(allow_inf_nan=False)]
ROUNDING = 0.005  # published values have two decimals


class Side(Strict):
    """Which rows one side of a difference may be; None matches everything.

    Rows that use labels are never meant.
    """

    method: Names | None = None  # plug-ins, such as nnclr, under whatever key of params.yaml
    positives: Names  # sources of positives: none, augmentation, bank


class Where(Strict):
    """Where a claim is made."""

    dataset: Names | None = None  # kinds of datasets; None: every dataset that is pretrained on
    architecture: Name | None = None  # of the encoder; None: all


class Measured(Strict):
    """Which number of a row is compared."""

    protocol: Literal["linear", "knn", "transfer"]
    variant: Literal["", "best_of_k"]


class Tolerance(Strict):
    """By how much a mean may fall short of the margin and still agree with the claim."""

    tau: NonNegativeFloat  # points
    source: Text


class Arithmetic(Strict):
    """What published numbers say; informative, decides nothing."""

    dataset: Name
    method: Name  # of the left side
    left: Number
    right: Number
    value: Number
    source: Text
    protocol_mismatch: bool  # left and right were not measured alike

    @model_validator(mode="after")
    def _adds_up(self) -> "Arithmetic":
        if abs(self.left - self.right - self.value) > ROUNDING:
            raise ValueError(
                f"value must be left - right = {self.left - self.right:.2f}, found {self.value}"
            )
        return self


class Procedure(Strict):
    """How a difference is tested."""

    kind: Literal["paired_t", "welch_t"]
    side: Literal["lower"]
    level: Annotated[float, Field(gt=0.5, lt=1)]


class _Claim(Strict):
    id: Annotated[str, Field(pattern=r"^C[0-9]+[a-z]?$")]
    text: Text


class Difference(_Claim):
    """The left side exceeds the right one by at least (or more than) the margin."""

    kind: Literal["difference"]
    left: Side
    right: Side
    own_method: bool  # the right side is of the left one's method
    where: Where
    number: Measured
    relation: Literal[">=", ">"]
    margin: Number
    seeds: Annotated[tuple[Seed, ...], Field(min_length=3), Distinct]
    test: Procedure
    tolerance: dict[Name, Tolerance]  # by kind of dataset; "other": all that are not named
    published: tuple[Arithmetic, ...]

    @model_validator(mode="after")
    def _has_tolerance_for_all(self) -> "Difference":
        if "other" not in self.tolerance and self.where.dataset is None:
            raise ValueError('tolerance: needs "other", because the claim names no dataset')
        for kind in self.where.dataset or ():
            if kind not in self.tolerance and "other" not in self.tolerance:
                raise ValueError(f'tolerance: nothing for dataset "{kind}", and no "other"')
        return self

    def tau(self, kind: str) -> float:
        """The tolerance on a dataset of a kind, points."""
        return (self.tolerance.get(kind) or self.tolerance["other"]).tau


class BestOfMany(_Claim):
    """The left side has the best mean on at least so many downstream datasets; ties count not."""

    kind: Literal["best_of_many"]
    left: Side
    right: Side
    where: Where
    number: Measured
    at_least: PositiveInt
    among: PositiveInt
    seeds: Annotated[tuple[Seed, ...], Field(min_length=3), Distinct]

    @model_validator(mode="after")
    def _fits(self) -> "BestOfMany":
        if self.at_least > self.among:
            raise ValueError(f"at_least {self.at_least} exceeds among {self.among}")
        return self


class HoldsOnSeveral(_Claim):
    """Another claim's proposition is reproduced on at least so many datasets.

    A dataset counts when every flavour of the left side that is run there is reproduced.
    """

    kind: Literal["holds_on_several"]
    claim: str  # id of a difference
    at_least: PositiveInt
    among: Names  # kinds of datasets


class AtMost(_Claim):
    """A quality figure of a bank is at most a limit."""

    kind: Literal["at_most"]
    metric: Literal["fid"]
    generator: Name
    limit: dict[Name, NonNegativeFloat]  # by kind of dataset
    images: PositiveInt  # candidates compared
    tolerance: Tolerance
    source: Text


Claim = Annotated[Difference | BestOfMany | HoldsOnSeveral | AtMost, Field(discriminator="kind")]


class Claims(Strict):
    """The whole of claims.yaml."""

    schema_version: Literal[1]
    minimum_seeds: Annotated[int, Field(ge=3)]
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        """Ids are distinct, before anything else, so that messages can use them."""
        entries = data.get("claims") if isinstance(data, dict) else None
        ids = [e.get("id") for e in entries or () if isinstance(e, dict)]
        for one in ids:
            if ids.count(one) > 1:
                raise ValueError(f'claims: id "{one}" is given twice')
        return data

    @model_validator(mode="after")
    def _refers(self) -> "Claims":
        known = {claim.id for claim in self.claims if isinstance(claim, Difference)}
        for claim in self.claims:
            if isinstance(claim, HoldsOnSeveral) and claim.claim not in known:
                raise ValueError(
                    f'{claim.id}: claim: "{claim.claim}" is no difference of this file; known: '
                    f"{', '.join(sorted(known))}"
                )
        return self


def read_claims(path: Path) -> Claims:
    """Read claims.yaml.

    Raises:
        ConfigError: If it cannot be read or a key in it is wrong, naming the key.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping, found {data!r}")
    return parse(Claims, data, str(path))
