"""The base of every configuration class, and the number types they share."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import nearest

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = NonNegativeInt
WORD = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Name = Annotated[str, Field(pattern=WORD, max_length=60)]
Slug = Annotated[str, Field(pattern=WORD, max_length=200)]  # names joined; a folder's name
Text = Annotated[str, Field(min_length=1)]
Channels = tuple[Fraction, Fraction, Fraction]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f'"{value}" is given twice')
    return values


Distinct = AfterValidator(_distinct)


class Strict(BaseModel):
    """Immutable; refuses unknown keys and names the nearest valid one.

    Fields carry no defaults except None for "feature absent": no scientific value hides in code.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    known = ", ".join(cls.model_fields) or "none"
                    raise ValueError(
                        f'unknown key "{key}"{nearest(str(key), cls.model_fields)}; '
                        f"valid keys: {known}"
                    )
        return data

    def canonical(self) -> dict[str, Any]:
        """Plain JSON types, absent features left out, so that a new field reruns no old job."""
        return self.model_dump(mode="json", exclude_none=True)


def _follows(problem: Any, problems: Sequence[Any]) -> bool:
    """Whether a list is held to be too short only because bad items of it are not counted."""
    own = problem["loc"]
    return problem["type"] == "too_short" and any(
        len(other["loc"]) > len(own) and other["loc"][: len(own)] == own for other in problems
    )


def explain(error: ValidationError, where: str) -> ConfigError:
    """One message with a line per problem: key path, what was found, what was expected."""
    lines, problems = [], error.errors()
    for problem in problems:
        if _follows(problem, problems):
            continue
        # Parts with a space say which of several shapes an entry has; they are no keys.
        path = ".".join(str(part) for part in problem["loc"] if " " not in str(part))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] in ("tuple_type", "too_short", "too_long"):  # YAML knows lists only
            message = message.replace("valid tuple", "valid list").replace("Tuple ", "List ")
        found = problem.get("input")
        shown = "" if isinstance(found, dict) else f", found {found!r}"
        lines.append(f"{path or 'top level'}: {message}{shown}")
    return ConfigError(f"{where}: " + "\n  ".join(lines))


def parse(model: type, data: Any, where: str) -> Any:
    """Validate data against a model.

    Raises:
        ConfigError: Naming the file or flag, the key path, the value and what was expected.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise explain(error, where) from None
