"""Published numbers, looked up for a row of a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clsp.config.labels import MARK
from clsp.config.load import read_yaml
from clsp.config.schema import EncoderSpec
from clsp.runtime.errors import ConfigError

STANDARD_WIDTH = 64  # torchvision's; a narrower encoder has no published counterpart
FIELDS = ("dataset", "architecture", "label", "protocol", "epochs", "value", "source")


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        value: Top-1 accuracy, percent; one seed.
        protocol: How its authors measured it, a key of `protocols` in published.yaml.
        epochs: Pretraining epochs.
        source: Where it stands.
    """

    value: float
    protocol: str
    epochs: int
    source: str
    note: str = ""


class PublishedNumbers:
    """The numbers of published.yaml by (dataset, architecture, label, protocol)."""

    def __init__(
        self, protocols: dict[str, str], numbers: dict[tuple[str, str, str, str], Published]
    ) -> None:
        self.protocols = protocols
        self._numbers = numbers

    @classmethod
    def read(cls, path: Path) -> "PublishedNumbers":
        """Read published.yaml.

        Raises:
            ConfigError: If the file is not of that shape.
        """
        data = read_yaml(path)
        try:
            sources, results = data["sources"], data["results"]
            numbers = {cls._key(entry): cls._number(entry, sources) for entry in results}
            return cls(dict(data["protocols"]), numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: expected sources, protocols and results with the fields "
                f"{', '.join(FIELDS)}; problem at {error}"
            ) from None

    @staticmethod
    def _key(entry: dict[str, Any]) -> tuple[str, str, str, str]:
        return (entry["dataset"], entry["architecture"], entry["label"], entry["protocol"])

    @staticmethod
    def _number(entry: dict[str, Any], sources: dict[str, str]) -> Published:
        return Published(
            float(entry["value"]),
            entry["protocol"],
            int(entry["epochs"]),
            sources[entry["source"]],
            entry.get("note", ""),
        )

    def find(
        self, dataset: str, encoder: EncoderSpec, label: str, protocol: str
    ) -> Published | None:
        """The published number of a row, or None where there is none.

        Authors print no mark behind methods that use labels, so that it is left out here.
        """
        if encoder.width != STANDARD_WIDTH or encoder.stem != "small":
            return None
        plain = label.removesuffix(MARK)
        return self._numbers.get((dataset, encoder.architecture, plain, protocol))
