"""Published numbers, looked up for a row of a table."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
        epochs: Pretraining epochs, None where no source says.
        source: Where it stands.
        note: What else has to be known of it.
        stem: Stem of the authors' encoder, None where no source says.
        labels: Whether the method is given labels of training images.
        mismatches: What it does not share with the row it was found for.
    """

    value: float
    protocol: str
    epochs: int | None
    source: str
    note: str = ""
    stem: str | None = "small"
    labels: bool = False
    mismatches: tuple[str, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """How published numbers were measured.

    Attributes:
        badge: Printed in the cell where our protocol is another one; None: it is ours.
        about: One line.
    """

    badge: str | None
    about: str


Key = tuple[str, str, str, str]  # dataset, architecture, label, protocol


class PublishedNumbers:
    """The numbers of published.yaml by (dataset, architecture, label, protocol)."""

    def __init__(
        self, protocols: dict[str, Protocol], numbers: dict[Key, tuple[Published, ...]]
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
            sources = data["sources"]
            protocols = {
                name: Protocol(entry["badge"], entry["about"])
                for name, entry in data["protocols"].items()
            }
            numbers: dict[Key, tuple[Published, ...]] = {}
            for entry in data["results"]:
                number = cls._number(entry, sources)
                _ = protocols[number.protocol]
                key = cls._key(entry)
                numbers[key] = (*numbers.get(key, ()), number)
            return cls(protocols, numbers)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{path}: expected sources, protocols and results with the fields "
                f"{', '.join(FIELDS)}; problem at {error}"
            ) from None

    @staticmethod
    def _key(entry: dict[str, Any]) -> Key:
        return (entry["dataset"], entry["architecture"], entry["label"], entry["protocol"])

    @staticmethod
    def _number(entry: dict[str, Any], sources: dict[str, str]) -> Published:
        epochs = entry["epochs"]
        return Published(
            float(entry["value"]),
            entry["protocol"],
            None if epochs is None else int(epochs),
            sources[entry["source"]],
            entry.get("note", ""),
            entry.get("stem", "small"),
            bool(entry.get("labels", False)),
        )

    def find(
        self,
        dataset: str,
        encoder: EncoderSpec,
        label: str,
        protocols: str | tuple[str, ...],
        epochs: int | None = None,
    ) -> Published | None:
        """The published number of a row, or None where there is none.

        Authors print no mark behind methods that use labels, so that it is left out here.

        Args:
            dataset: Name of the dataset.
            encoder: Of the row.
            label: Of the row.
            protocols: One, or several in order of preference.
            epochs: Of the row; a number with as many epochs comes first, then the longest.
        """
        if encoder.width != STANDARD_WIDTH:
            return None
        plain = label.removesuffix(MARK)
        for protocol in (protocols,) if isinstance(protocols, str) else protocols:
            held = self._numbers.get((dataset, encoder.architecture, plain, protocol), ())
            if held:
                best = max(held, key=lambda n: (n.epochs == epochs, n.epochs or 0))
                return replace(best, mismatches=(*self._mismatches(best, encoder, epochs),))
        return None

    def _mismatches(
        self, number: Published, encoder: EncoderSpec, epochs: int | None
    ) -> Iterator[str]:
        if badge := self.protocols[number.protocol].badge:
            yield badge
        if epochs is not None and number.epochs is not None and number.epochs != epochs:
            yield f"{number.epochs} epochs"
        if number.stem is not None and number.stem != encoder.stem:
            yield "other stem"

    def labels_on(self, dataset: str, architecture: str, with_labels: bool) -> list[str]:
        """Labels of every published row on a dataset, in the order of the file.

        Args:
            dataset: Name of the dataset.
            architecture: Of the encoder.
            with_labels: Whether to list methods that use labels too; their labels carry the mark.
        """
        found: dict[str, None] = {}
        for (where, kind, label, _), numbers in self._numbers.items():
            used = any(number.labels for number in numbers)
            if (where, kind) == (dataset, architecture) and (with_labels or not used):
                found[f"{label}{MARK}" if used else label] = None
        return list(found)
