"""Archives that are damaged, or made to do harm, are refused before anything is written."""

import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundling import Members, edit_manifest, members_of, rewrite, write_members

from clsp.bundle.layout import MANIFEST, collisions, wrong_name
from clsp.bundle.opened import opened
from clsp.runtime.errors import DataError


def refused(path: Path, tmp_path: Path, match: str) -> None:
    """The bundle is refused, and nothing came out of it but below its folder."""
    room = tmp_path / "room"
    before = {each for each in tmp_path.rglob("*") if room not in each.parents} - {room}
    with pytest.raises(DataError, match=match), opened(path, room):
        pass
    assert not room.exists() or list(room.iterdir()) == []  # refused, so that nothing stays
    after = {each for each in tmp_path.rglob("*") if room not in each.parents} - {room}
    assert after == before and not list(tmp_path.parent.glob("*escaped*"))


NAMES = {
    "/etc/escaped": "an absolute path",
    "../escaped": "leads elsewhere",
    "results/tiny/../../escaped": "leads elsewhere",
    "results//twice": "leads elsewhere",
    "results/./here": "leads elsewhere",
    "C:escaped": "manner of Windows",
    "results\\escaped": "manner of Windows",
    "results/bell\a": "control characters",
    "results/" + "a" * 2000: "a name of 2008 characters",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere(name: str, bundle: Path, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("x")
    entry.filename = name
    path = rewrite(bundle, tmp_path / "a.zip", lambda held: [*held, (entry, b"boo")])
    refused(path, tmp_path, NAMES[name])

    def rename(told: dict[str, Any]) -> None:
        told["files"][0]["name"] = name

    refused(edit_manifest(bundle, tmp_path / "b.zip", rename), tmp_path, "MANIFEST|member")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR])
def test_links_and_devices(kind: int, bundle: Path, tmp_path: Path) -> None:
    def turn(held: Members) -> Members:
        entry, _ = held[0]
        entry.external_attr = (kind | 0o777) << 16
        return [(entry, b"/etc/passwd"), *held[1:]]

    refused(rewrite(bundle, tmp_path / "a.zip", turn), tmp_path, "link, a folder or a device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice(bundle: Path, tmp_path: Path) -> None:
    path = rewrite(bundle, tmp_path / "a.zip", lambda held: [*held, held[3]])
    refused(path, tmp_path, "is there twice")


def test_a_file_that_is_also_a_folder(bundle: Path, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("results")
    path = rewrite(bundle, tmp_path / "a.zip", lambda held: [*held, (entry, b"")])
    refused(path, tmp_path, "is a folder too")


def test_members_that_are_not_named(bundle: Path, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("results/tiny/more.json")
    path = rewrite(bundle, tmp_path / "a.zip", lambda held: [*held, (entry, b"{}")])
    refused(path, tmp_path, "which is not named")
    path = rewrite(bundle, tmp_path / "b.zip", lambda held: held[1:])
    refused(path, tmp_path, "lacks")


def test_a_bomb_is_not_unpacked(bundle: Path, tmp_path: Path) -> None:
    """A member that says it is small and is not, and one that inflates beyond all reason."""

    def grow(held: Members) -> Members:
        entry, _ = next(m for m in held if m[0].filename.endswith("encoder.safetensors"))
        entry.compress_type = zipfile.ZIP_DEFLATED
        return [(e, b"\0" * 50_000_000 if e is entry else t) for e, t in held]

    refused(rewrite(bundle, tmp_path / "a.zip", grow), tmp_path, "instead of")
    path = rewrite(bundle, tmp_path / "b.zip", grow)
    content = bytearray(path.read_bytes())
    lying = struct.pack("<L", 50_000_000)
    assert lying in content
    content = content.replace(lying, struct.pack("<L", 2_000_000_000))
    path.write_bytes(content)
    refused(path, tmp_path, "2000000000 bytes out of")


def test_what_does_not_fit_on_the_disk(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("clsp.bundle.unpack.shutil.disk_usage", lambda _: Usage)
    refused(bundle, tmp_path, "1000 are free")


def test_too_many_members(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clsp.bundle.unpack.MOST_FILES", 20)
    refused(bundle, tmp_path, "at most")
    monkeypatch.setattr("clsp.bundle.unpack.MOST_FILES", 10_000)
    monkeypatch.setattr("clsp.bundle.layout.MOST_FILES", 20)
    refused(bundle, tmp_path, "at most 20 are read")


@pytest.mark.parametrize("told", [1 << 16, 0xFFFFFFFF])
def test_a_list_of_members_that_is_too_long(
    told: int, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever length the archive states, no more than a bundle's list is read."""
    content = bytearray(bundle.read_bytes())
    content[-10:-6] = struct.pack("<L", told)
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    monkeypatch.setattr("clsp.bundle.unpack.LONGEST_LIST", 1000)
    with pytest.raises(DataError, match="not a whole bundle"), opened(path):
        pass
    with pytest.raises(DataError, match="more than 1000 bytes"), opened(bundle):
        pass


def test_members_that_overlap(bundle: Path, tmp_path: Path) -> None:
    content = bytearray(bundle.read_bytes())
    first = content.find(b"PK\x01\x02")
    second = content.find(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    refused(path, tmp_path, "overlaps|damaged|not a whole")


def test_every_truncation_is_seen(bundle: Path, tmp_path: Path) -> None:
    content, path = bundle.read_bytes(), tmp_path / "a.zip"
    for length in (0, 1, 100, len(content) // 2, len(content) - 30, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, tmp_path, "bundle")


def test_a_flipped_bit_is_seen_in_every_kind_of_member(bundle: Path, tmp_path: Path) -> None:
    seen: dict[str, zipfile.ZipInfo] = {}
    for entry, _ in members_of(bundle):
        seen.setdefault(Path(entry.filename).suffix, entry)
    for entry in seen.values():
        content = bytearray(bundle.read_bytes())
        place = entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2
        content[place] ^= 4
        path = tmp_path / "a.zip"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.zip: "), opened(path):
            pass


def test_other_content_with_a_good_checksum_of_the_archive(bundle: Path, tmp_path: Path) -> None:
    def change(held: Members) -> Members:
        place = next(i for i, m in enumerate(held) if m[0].filename.endswith("linear.json"))
        entry, text = held[place]
        return [*held[:place], (entry, text[:-2] + b"!" + text[-1:]), *held[place + 1 :]]

    refused(rewrite(bundle, tmp_path / "a.zip", change), tmp_path, r"linear\.json' has .* instead")


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for content in (b"", b"hello", b"PK\x05\x06" + b"\0" * 18, b"PK\x05\x06" + b"\xff" * 18):
        path.write_bytes(content)
        refused(path, tmp_path, "bundle")
    with pytest.raises(DataError, match="cannot be read"), opened(tmp_path / "none.zip"):
        pass


def _drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda told: told.pop(key)


def _file(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda told: told["files"][0].update(changes)


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no type": (_drop("type"), "no manifest of a bundle"),
    "newer": (lambda told: told.update(schema_version=2), "schema_version 2"),
    "no files": (_drop("files"), "files: expected list"),
    "no ledger": (_drop("ledger"), "ledger: expected dict"),
    "a size": (_file(size=-1), "expected a number of bytes"),
    "no size": (_file(size=True), "expected a number of bytes"),
    "a digest": (_file(sha256="0" * 63), "expected a sha256"),
    "another digest": (_file(sha256="0" * 64), "instead of"),
    "a profile": (lambda told: told.update(profile="../x"), "no name of a folder"),
    "another profile": (lambda told: told.update(profile="other"), "cannot be used|says profile"),
    "another head": (lambda told: told["ledger"].update(head="0" * 64), "says ledger.head"),
    "other settings": (lambda told: told.update(spec_sha256="0" * 64), "says spec_sha256"),
    "twice": (lambda told: told["files"].append(told["files"][0]), "stands there twice"),
    "absent and there": (
        lambda told: told["left_out"].append(told["files"][0]),
        "stands there twice",
    ),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_makes_no_sense(name: str, bundle: Path, tmp_path: Path) -> None:
    change, match = MANIFESTS[name]
    path = edit_manifest(bundle, tmp_path / "a.zip", lambda told: change(told) and None)
    refused(path, tmp_path, match)


PARTS = {
    "beyond its end": {"start": 1 << 40},
    "of nothing": {"member": "none"},
    "of itself": {"member": "results/tiny/banks/digits.mix/shards/1-of-2.npy"},
    "shifted": {"start": 0},
    "no bytes": {"head": "zz"},
    "negative": {"start": -1},
    "too much before it": {"head": "00" * 70_000},
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_make_no_sense(name: str, bundle: Path, tmp_path: Path) -> None:
    def change(told: dict[str, Any]) -> None:
        next(each for each in told["files"] if "from" in each)["from"].update(PARTS[name])

    refused(edit_manifest(bundle, tmp_path / "a.zip", change), tmp_path, r"a\.zip: ")


def test_the_manifest_itself_can_be_missing_or_no_json(bundle: Path, tmp_path: Path) -> None:
    for text in (b"[]", b"{", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000):
        held = [(e, text if e.filename == MANIFEST else t) for e, t in members_of(bundle)]
        refused(write_members(tmp_path / "a.zip", held), tmp_path, MANIFEST)
    held = [(e, t) for e, t in members_of(bundle) if e.filename != MANIFEST]
    refused(write_members(tmp_path / "a.zip", held), tmp_path, "it has no MANIFEST")


def test_names() -> None:
    assert wrong_name("results/tiny/a b/ü.json") == ""
    assert wrong_name("") and wrong_name("a/") and wrong_name("a\0b") and wrong_name("a\ud800")
    assert collisions(["a/b", "a/c"]) == ""
    assert collisions(["a", "a/c"]) == "a"
    assert collisions(["\u00fc", "u\u0308"]) == "\u00fc"
