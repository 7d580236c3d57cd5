"""What lies in a bundle, and the shape of its manifest.

A zip archive whose members are plain files: `results/PROFILE/...`, `reports/PROFILE/...`,
`reports/spec/...`, `params.json`, perhaps `mlflow.json` and `datasets.lock.json`, and
MANIFEST.json, which names every other file with its size and sha256. A file whose bytes stand in
another one already, such as a shard in its bank, is not stored: the manifest says which part of
which file it is.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

MANIFEST = "MANIFEST.json"
PARAMS = "params.json"  # resolved, in the order of params.yaml
MLFLOW = "mlflow.json"
LOCK = "datasets.lock.json"
SPEC = "reports/spec"
TYPE = "urn:clsp-suite:bundle:v1"
SCHEMA = 1
LEVEL = "L2"
MOST_FILES = 200_000
LONGEST_NAME = 1024
HEAD = 1 << 16  # bytes that a file may have before the part that lies in another one
SHA256 = re.compile(r"[0-9a-f]{64}")
KEYS = {
    "changed": list,
    "complete": bool,
    "expectations": dict,
    "files": list,
    "left_out": list,
    "ledger": dict,
    "level": str,
    "missing": list,
    "profile": str,
    "scanned": list,
    "schema_version": int,
    "spec_sha256": str,
    "suite": dict,
    "type": str,
}


@dataclass(frozen=True)
class Part:
    """Where the bytes of a file lie that is not stored.

    Attributes:
        member: File that holds them.
        start: First byte there.
        length: How many, bytes.
        head: What stands before them.
    """

    member: str
    start: int
    length: int
    head: bytes = b""

    def record(self) -> dict[str, Any]:
        """Plain JSON types."""
        told = {"member": self.member, "start": self.start, "length": self.length}
        return {**told, "head": self.head.hex()}


@dataclass(frozen=True)
class Member:
    """One file of a bundle."""

    name: str
    size: int
    sha256: str
    part: Part | None = None

    def record(self) -> dict[str, Any]:
        """Plain JSON types."""
        told = {"name": self.name, "size": self.size, "sha256": self.sha256}
        return {**told, "from": self.part.record()} if self.part else told


@dataclass(frozen=True)
class Contents:
    """A bundle's manifest, checked.

    Attributes:
        record: All of it, plain JSON.
        members: Every file by name, MANIFEST.json not among them.
        left_out: Files that are named and not there, of which an audit has to know.
    """

    record: dict[str, Any]
    members: dict[str, Member] = field(default_factory=dict)
    left_out: dict[str, Member] = field(default_factory=dict)

    @property
    def profile(self) -> str:
        """Name of the profile."""
        return self.record["profile"]


def wrong_name(name: str) -> str:
    """Why a file of a bundle may not be called so, or nothing."""
    if not name or len(name) > LONGEST_NAME:
        return f"a name of {len(name)} characters"
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in name):
        return "letters that are none in its name"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "control characters in its name"
    if "\\" in name or re.match(r"[A-Za-z]:", name):
        return "a name in the manner of Windows"
    if name.startswith("/"):
        return "an absolute path"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "a path that leads elsewhere"
    return ""


def collisions(names: list[str]) -> str:
    """A name that stands twice, or is also the folder of another; nothing if there is none.

    Names whose accents are written in two ways count as one; some file systems take them for one.
    """
    plain = [unicodedata.normalize("NFC", name) for name in names]
    seen: set[str] = set()
    for name in plain:
        if name in seen:
            return name
        seen.add(name)
    folders = {str(folder) for name in plain for folder in PurePosixPath(name).parents}
    return next((name for name in plain if name in folders), "")


def _count(value: Any, where: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{where}: expected a number of bytes, found {value!r}"[:200])
    return value


def _part(told: Any, where: str) -> Part:
    if not isinstance(told, dict) or set(told) != {"member", "start", "length", "head"}:
        raise ValueError(f"{where}.from: expected member, start, length and head")
    head = bytes.fromhex(told["head"]) if isinstance(told["head"], str) else None
    if head is None or len(head) > HEAD or not isinstance(told["member"], str):
        raise ValueError(f"{where}.from: expected the name of a file and at most {HEAD} bytes")
    start, length = (_count(told[key], f"{where}.from.{key}") for key in ("start", "length"))
    return Part(told["member"], start, length, head)


def _member(told: Any, where: str) -> Member:
    if not isinstance(told, dict) or not {"name", "size", "sha256"} <= set(told):
        raise ValueError(f"{where}: expected name, size and sha256")
    name, digest = told["name"], told["sha256"]
    if not isinstance(name, str) or (wrong := wrong_name(name)):
        raise ValueError(f"{where}: {name!r} has {wrong if isinstance(name, str) else 'no name'}")
    if not isinstance(digest, str) or not SHA256.fullmatch(digest):
        raise ValueError(f"{where} ({name}): expected a sha256, found {digest!r}"[:200])
    part = _part(told["from"], f"{where} ({name})") if "from" in told else None
    return Member(name, _count(told["size"], f"{where} ({name}).size"), digest, part)


def _check_parts(members: dict[str, Member]) -> None:
    for name, member in members.items():
        if (part := member.part) is None:
            continue
        held = members.get(part.member)
        if held is None or held.part is not None:
            raise ValueError(f"{name}: is said to lie in {part.member}, which is not stored")
        if part.start + part.length > held.size or len(part.head) + part.length != member.size:
            raise ValueError(f"{name}: its part of {part.member} does not fit")


def parse_contents(told: Any) -> Contents:
    """Check the shape of a bundle's manifest.

    Raises:
        ValueError: Naming the first entry that is wrong.
    """
    if not isinstance(told, dict) or told.get("type") != TYPE:
        raise ValueError(f"no manifest of a bundle (type {TYPE})")
    if told.get("schema_version") != SCHEMA:
        found = told.get("schema_version")
        raise ValueError(f"schema_version {found!r}; this suite reads {SCHEMA}")
    for key, kind in KEYS.items():
        if not isinstance(told.get(key), kind):
            raise ValueError(f"{key}: expected {kind.__name__}, found {told.get(key)!r}"[:200])
    if len(told["files"]) + len(told["left_out"]) > MOST_FILES:
        raise ValueError(f"files: {len(told['files'])} of them; at most {MOST_FILES} are read")
    every = [_member(each, f"files[{n}]") for n, each in enumerate(told["files"])]
    absent = [_member(each, f"left_out[{n}]") for n, each in enumerate(told["left_out"])]
    if twice := collisions([MANIFEST, *(each.name for each in every + absent)]):
        raise ValueError(f"files: {twice} stands there twice, or is a folder too")
    if wrong_name(told["profile"]) or "/" in told["profile"]:
        raise ValueError(f"profile: {told['profile']!r} is no name of a folder")
    members = {each.name: each for each in every}
    named = {name for name in members if name.startswith(f"{SPEC}/")}
    if strange := sorted(told["expectations"].keys() - named):
        raise ValueError(f"expectations: {strange[0]!r} is no file of {SPEC}"[:200])
    _check_parts(members)
    return Contents(told, members, {each.name: each for each in absent})
