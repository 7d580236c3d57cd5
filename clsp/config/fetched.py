"""Options that every downloadable dataset kind shares (torch-free)."""

from typing import ClassVar, Literal

from pydantic import model_validator

from clsp.config.strict import NonNegativeInt, Strict


class FetchedConfig(Strict):
    """Where the files come from: the publisher's archives, or a miniature drawn from a seed."""

    fetched: ClassVar[bool] = True
    source: Literal["download", "miniature"]
    seed: NonNegativeInt | None = None  # of the miniature

    @model_validator(mode="after")
    def _check_seed(self) -> "FetchedConfig":
        if self.source == "miniature" and self.seed is None:
            raise ValueError("source: miniature is drawn at random and needs a seed")
        return self
