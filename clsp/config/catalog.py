"""The catalogue of datasets: what is known of each kind and of every archive (catalog.yaml).

One file knows every archive: where it is, how large, its digests and who vouches for them, what it
holds, whose it is. Downloads, extraction, cards, `python -m clsp data` and the audit read it here.
"""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, model_validator

from clsp.config.strict import NonNegativeInt, PositiveInt, Strict, Text, parse
from clsp.runtime.canonical import sha256_json
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import nearest

FILE = "catalog.yaml"
CLASSES = "classes"  # folder of the class names, one file per kind, one name per line
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Https = Annotated[str, Field(pattern=r"^https://[^/@]+/")]  # no credentials before the host
Plain = Annotated[str, Field(pattern=r"^[^/\\]+$")]
Metric = Literal["top1", "mean_per_class", "map11"]  # methods.md 4.1


class Members(Strict):
    """Files of an archive that are wanted.

    `pattern` is a path inside the archive in which `*` stands for anything but a slash and `**`
    for anything.
    """

    pattern: Text
    count: PositiveInt | None = None  # exactly so many; None: one or more, up to `most`
    most: PositiveInt | None = None

    @model_validator(mode="after")
    def _check(self) -> "Members":
        if self.count is not None and self.most is not None:
            raise ValueError(f"{self.pattern}: count and most exclude each other")
        return self


class Nested(Strict):
    """An archive inside an archive: the path of the outer one's member, and what it holds."""

    name: Text
    members: Annotated[tuple[Members, ...], Field(min_length=1)]


class Archive(Strict):
    """One file that a dataset's publisher offers."""

    name: Plain  # of the file in the downloads folder
    urls: tuple[Https, ...] = ()  # mirrors, in the order in which they are tried; none: by hand
    hosts: tuple[Text, ...] = ()  # domains that an address may be at, also after a redirect
    size: PositiveInt | None = None  # bytes, where somebody published them
    sha256: Sha256 | None = None  # None: the first download that fits everything else pins it
    md5: Md5 | None = None
    checked: Text  # where size and digests were taken from, and what could not be confirmed
    folder: str = ""  # where its members go, below the dataset's folder
    members: tuple[Members, ...] = ()
    nested: tuple[Nested, ...] = ()  # archives among the members, unpacked in their turn
    manual: Text | None = None  # what the user has to do where it cannot be downloaded

    @model_validator(mode="after")
    def _check(self) -> "Archive":
        for url in self.urls:
            host = urlsplit(url).hostname or ""
            if not is_known_host(host, self.hosts):
                raise ValueError(f"{self.name}: hosts lack {host}, which is in urls")
        if not self.urls and self.manual is None:
            raise ValueError(f"{self.name}: without urls it needs `manual`")
        return self

    @property
    def packed(self) -> bool:
        """Whether it holds files; else the file itself is wanted, under its own name."""
        return bool(self.members or self.nested)


class Counts(Strict):
    """What a reader must find in the real files under one protocol (methods.md 4.1)."""

    options: dict[Text, Any] = Field(default={})  # of the kind, that select the protocol
    classes: PositiveInt
    train: PositiveInt
    val: NonNegativeInt
    test: PositiveInt
    unlabelled: PositiveInt | None = None  # training images without a label, among `train`
    note: str = ""


class DatasetInfo(Strict):
    """Facts about a dataset kind, printed on the card of every dataset prepared from it."""

    title: Text
    license: Text
    source: Text
    citation: Text
    metric: Metric
    note: str = ""  # how the splits are made, where that is a choice
    archives: tuple[Archive, ...] = ()
    manual: Text | None = None  # what the user has to bring where there is no archive
    counts: dict[Text, Counts] = Field(default={})  # by protocol; the first is the default one
    class_names: tuple[Text, ...] = ()  # in the order of labels, where they are known

    @property
    def multilabel(self) -> bool:
        """Whether images show several classes at once."""
        return self.metric == "map11"


def is_known_host(host: str, hosts: Iterable[str]) -> bool:
    """Whether a host is one of the domains, or below one."""
    return any(host == known or host.endswith(f".{known}") for known in hosts)


@cache
def _catalogue() -> dict[str, Any]:
    text = files("clsp.config").joinpath(FILE).read_text(encoding="utf-8")
    return yaml.safe_load(text)


def _class_names(kind: str) -> list[str]:
    listed = files("clsp.config").joinpath(CLASSES, f"{kind}.txt")
    return listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []


def known_kinds() -> tuple[str, ...]:
    """Every kind with an entry, in the order of the file."""
    return tuple(_catalogue())


@cache
def dataset_info(kind: str) -> DatasetInfo:
    """The entry of a dataset kind.

    Raises:
        ConfigError: If there is none, or it is malformed.
    """
    known = _catalogue()
    if kind not in known:
        raise ConfigError(
            f'{FILE}: no entry for kind "{kind}"{nearest(kind, known)}; known: {", ".join(known)}'
        )
    entry = {"class_names": _class_names(kind), **known[kind]}
    return parse(DatasetInfo, entry, f"{FILE}: {kind}")


def contents_digest(kind: str) -> str:
    """A digest of what the archives of a kind are and hold: not of mirrors, licence or notes."""
    kept = {"name", "size", "sha256", "md5", "folder", "members", "nested"}
    archives = [archive.canonical() for archive in dataset_info(kind).archives]
    return sha256_json([{key: a[key] for key in sorted(kept & a.keys())} for a in archives])
