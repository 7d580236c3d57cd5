"""The files of an experiment as entities of a crate, each by its path or by its digest.

What lies in the crate has its path as id. What does not is named by its bytes, as RFC 6920 has it
(ni:///sha-256;...): arrays, weights and step logs would make the crate as large as the results.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clsp.export.privacy import names_machine
from clsp.runtime.canonical import sha256_file
from clsp.runtime.errors import DataError
from clsp.runtime.places import without_places

MEDIA = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".csv": "text/csv",
    ".md": "text/markdown",
    ".tex": "application/x-tex",
    ".html": "text/html",
    ".png": "image/png",
    ".yaml": "application/yaml",
    ".lock": "text/plain",
    ".smk": "text/x-snakemake",
    ".txt": "text/plain",
    ".bib": "application/x-bibtex",
    ".safetensors": "application/octet-stream",
    ".npy": "application/octet-stream",
    ".npz": "application/zip",
    ".arrow": "application/vnd.apache.arrow.file",
}
TEXTS = {".json", ".jsonl", ".csv", ".md", ".tex", ".html", ".yaml", ".lock", ".smk", ""}
HIDDEN = "Not in this crate: it names paths of the machine that it was made on."
ELSEWHERE = "Not in this crate, which names it by its digest."


def named_by_digest(sha256: str) -> str:
    """The id of a file that is not in the crate: its sha256 as a named-information URI."""
    packed = base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")
    return f"ni:///sha-256;{packed}"


@dataclass
class Entity:
    """One file.

    Attributes:
        id: Path in the crate, or the digest as a URI.
        sha256: Of its bytes.
        properties: For the metadata.
        source: Where it is copied from; None where only its digest is in the crate.
        names: Its paths below the suite's folder.
    """

    id: str
    sha256: str
    properties: dict[str, Any]
    source: Path | None
    names: list[str] = field(default_factory=list)


@dataclass
class Files:
    """All files of a crate, each once.

    Attributes:
        whole: Copy everything that is there.
    """

    whole: bool
    _known: dict[tuple[str, str], Entity] = field(default_factory=dict)  # by name and sha256
    _entities: dict[str, Entity] = field(default_factory=dict)  # by id

    def __iter__(self) -> Iterator[Entity]:
        return iter(self._entities.values())

    def add(
        self,
        name: str,
        sha256: str,
        source: Path | None = None,
        carried: bool = False,
        **properties: Any,
    ) -> str:
        """Register a file; returns its id.

        Args:
            name: Its path below the suite's folder.
            sha256: Digest that a record states.
            source: Where it lies now, if it does.
            carried: Whether it is worth copying even where not everything is.
            properties: What else is known of it.

        Raises:
            DataError: If it lies there with other bytes.
        """
        shown = without_places(name)
        entity = self._known.get((shown, sha256))
        if entity is None:
            entity = self._new(shown, sha256, source, carried)
            self._known[shown, sha256] = self._entities[entity.id] = entity
        entity.properties |= {k: v for k, v in properties.items() if v is not None}
        return entity.id

    def _new(self, name: str, sha256: str, source: Path | None, carried: bool) -> Entity:
        media = MEDIA.get(Path(name).suffix, "application/octet-stream")
        about: dict[str, Any] = {"name": name, "sha256": sha256, "encodingFormat": media}
        copied, reason = False, ELSEWHERE
        if source is not None:
            if not source.is_file() or (found := sha256_file(source)) != sha256:
                told = f"sha256 {found[:16]}..." if source.is_file() else "nothing"
                raise DataError(f"{source}: expected sha256 {sha256[:16]}..., found {told}")
            about["contentSize"] = str(source.stat().st_size)
            copied = self.whole or carried
            if copied and Path(name).suffix in TEXTS and names_machine(source):
                copied, reason = False, HIDDEN
        if copied:
            return Entity(name, sha256, about, source, [name])
        identifier = named_by_digest(sha256)
        same = self._entities.get(identifier)
        if same is None:
            return Entity(identifier, sha256, {**about, "description": reason}, None, [name])
        same.names.append(name)
        same.properties["alternateName"] = sorted(set(same.names))
        return same
