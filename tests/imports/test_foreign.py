"""Foreign files: tensors come out whole, and nothing else of a file ever runs or is read."""

import hashlib
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from theirs import save_safe

from clsp.runtime import foreign
from clsp.runtime.errors import DataError
from clsp.runtime.foreign import load_foreign, without_prefix
from clsp.runtime.foreign_child import Refused, convert

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor(3)}


class Payload:
    """What a hostile pickle holds: a call that leaves a file behind."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def refused(path: Path, *words: str, sha256: str | None = None) -> None:
    with pytest.raises(DataError) as caught:
        load_foreign(path, sha256)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    for word in words:
        assert word in told


def test_both_containers_and_a_pinned_digest(tmp_path):
    for name, save in (("a.pt", torch.save), ("a.safetensors", save_safe)):
        path = tmp_path / name
        save(TENSORS, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found = load_foreign(path, digest)
        same(found.tensors, TENSORS)
        assert (found.sha256, found.size) == (digest, path.stat().st_size)
        assert found.facts()["path"] == str(path)
        refused(path, digest, "expected " + "0" * 64, sha256="0" * 64)


def test_a_state_dict_under_a_known_key_and_through_a_link(tmp_path):
    network = torch.nn.BatchNorm1d(3)  # its state dict is ordered and carries metadata
    target = tmp_path / "kept" / "nested.pt"
    target.parent.mkdir()
    torch.save({"epoch": 3, "state_dict": network.state_dict(), "optimizer": {"lr": 1.0}}, target)
    link = tmp_path / "link.pt"
    link.symlink_to(target)
    found = load_foreign(link)
    same(found.tensors, dict(network.state_dict()))
    assert (found.nested, found.beside) == ("state_dict", ["epoch", "optimizer"])
    assert found.resolved == target


def test_a_hostile_pickle_does_not_run(tmp_path):
    marker = tmp_path / "marker"
    torch.save({"a": torch.ones(1), "b": Payload(marker)}, tmp_path / "evil.pt")
    refused(tmp_path / "evil.pt", "cannot be read as tensors alone", "asks for posix.system")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Payload(marker)))
    refused(tmp_path / "bare.pt", "a bare pickle", "expected a safetensors file or a zip file")
    assert not marker.exists()


def rewritten(path: Path, change, compression=zipfile.ZIP_STORED) -> Path:
    """The same zip file with its entries changed by a function of (name, content)."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    target = path.with_name("changed.pt")
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in entries:
            for changed in change(name, content):
                archive.writestr(*changed)
    return target


def with_constants(name: str, content: bytes) -> list[tuple[str, bytes]]:
    """What a TorchScript archive has besides."""
    more = [(name.replace("data.pkl", "constants.pkl"), content)] if "data.pkl" in name else []
    return [(name, content), *more]


@pytest.fixture
def whole(tmp_path) -> Path:
    torch.save({"a": torch.zeros(50_000)}, tmp_path / "whole.pt")
    return tmp_path / "whole.pt"


def test_damaged_and_odd_zip_files_are_refused_unread(whole, monkeypatch):
    monkeypatch.setattr(foreign, "_convert", lambda *_: pytest.fail("the child was started"))
    short = whole.with_name("short.pt")
    short.write_bytes(whole.read_bytes()[:-100])
    refused(short, "truncated or damaged zip file")
    bomb = rewritten(whole, lambda n, c: [(n, c)], zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 5000  # declares 200 kB
    refused(bomb, "compressed or encrypted entry")
    with pytest.warns(UserWarning, match="Duplicate name"):
        doubled = rewritten(whole, lambda n, c: [(n, c)] * (1 + n.endswith("data/0")))
    refused(doubled, "twice")
    refused(rewritten(whole, lambda n, c: [(n, c)] * ("data.pkl" not in n)), "has no data.pkl")
    refused(rewritten(whole, with_constants), "TorchScript")
    refused(rewritten(whole, lambda n, c: [(n, c), (f"other/{n}", c)]), "several folders")
    monkeypatch.setattr(foreign, "LARGEST_PICKLE", 10)
    refused(whole, "has a pickle of")
    monkeypatch.setattr(foreign, "LARGEST", 1000)
    refused(whole, "larger than the 1000 bytes")


def test_a_zip_file_whose_table_declares_more_than_it_has(whole, monkeypatch):
    monkeypatch.setattr(foreign, "_convert", lambda *_: pytest.fail("the child was started"))
    content = bytearray(whole.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/0"))
    struct.pack_into("<II", content, entry + 20, 1 << 30, 1 << 30)
    path = whole.with_name("claims.pt")
    path.write_bytes(content)
    refused(path, "declares 1073", "but has")


BAD = {
    "huge": ({"a": torch.zeros(1).expand(10**6, 10**6)}, "claims tensors of 4000000000000 bytes"),
    "number": ({"a": torch.zeros(1), "b": 3}, '"b" is a int, expected a tensor'),
    "nested twice": ({"model": {"state_dict": {"a": torch.zeros(1)}}}, '"state_dict" is a dict'),
    "unknown key": ({"weights": {"a": torch.zeros(1)}}, '"weights" is a dict, expected a tensor'),
    "list": ([torch.zeros(1)], "holds a list, expected a state dict"),
    "empty": ({}, "holds no tensor"),
    "numbered": ({1: torch.zeros(1)}, "has the key 1, expected names"),
    "sparse": ({"a": torch.zeros(2, 2).to_sparse()}, "expected a dense one"),
    "complex": ({"a": torch.zeros(2, dtype=torch.complex64)}, "expected numbers of a common type"),
    "meta": ({"a": torch.empty(2, device="meta")}, "on meta, expected a dense one"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_state_dict_is_refused(tmp_path, name):
    """What the child does, here in this process: starting one takes seconds."""
    content, message = BAD[name]
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(Refused) as caught:
        convert(tmp_path / "bad.pt", tmp_path / "out.safetensors")
    assert message in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_tensors_that_share_memory_come_out_as_they_are(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    shared = {"a": whole[:2], "b": whole.T, "c": whole[1]}
    torch.save(shared, tmp_path / "shared.pt")
    convert(tmp_path / "shared.pt", tmp_path / "out.safetensors")
    same(load_foreign(tmp_path / "out.safetensors").tensors, shared)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_tensors_that_are_not_finite_are_refused(tmp_path, value):
    save_safe({"a": torch.tensor([1.0, value], dtype=torch.float16)}, tmp_path / "bad")
    refused(tmp_path / "bad", '"a" holds NaN, infinity or more')


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "complex64", "uint16"])
def test_odd_kinds_of_numbers_in_safetensors_are_refused(tmp_path, kind):
    save_safe({"a": torch.zeros(2).to(getattr(torch, kind))}, tmp_path / "odd")
    refused(tmp_path / "odd", f'"a" holds torch.{kind}, expected a common type')


def test_numbers_too_large_for_float32_are_refused(tmp_path):
    save_safe({"a": torch.tensor([1e300], dtype=torch.float64)}, tmp_path / "large")
    refused(tmp_path / "large", "more than float32 can")


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "ä", "a" * 301])
def test_names_that_no_network_has_are_refused(tmp_path, name):
    """They would reach a terminal in messages."""
    save_safe({name: torch.zeros(1)}, tmp_path / "named")
    refused(tmp_path / "named", "is no name of a tensor")


def test_a_lazy_sign_is_carried_out(tmp_path):
    torch.save({"a": torch._neg_view(torch.ones(3))}, tmp_path / "neg.pt")
    convert(tmp_path / "neg.pt", tmp_path / "out.safetensors")
    same(load_foreign(tmp_path / "out.safetensors").tensors, {"a": -torch.ones(3)})


def test_a_child_that_dies_or_hangs_is_an_error(whole, monkeypatch, tmp_path):
    silent = tmp_path / "silent.py"
    silent.write_text("import sys; sys.exit(3)")
    monkeypatch.setattr(foreign, "CHILD", silent)
    refused(whole, "ended with code 3 and no answer")
    silent.write_text("while True: pass")
    monkeypatch.setattr(foreign, "SECONDS", 1)
    refused(whole)


def test_the_child_may_start_nothing_and_use_little_memory(tmp_path):
    """The limits themselves, as if weights_only let something through."""
    tries = tmp_path / "tries.py"
    tries.write_text(
        f"import sys; sys.path.insert(0, {str(foreign.CHILD.parent)!r})\n"
        "import foreign_child, os, socket, subprocess\n"
        "foreign_child._confine(64 << 20)\n"
        "told = []\n"
        "for act in (lambda: os.system('true'), lambda: subprocess.run(['true']),\n"
        "            lambda: socket.socket(), lambda: bytearray(1 << 30)):\n"
        "    try:\n        act()\n        told.append('done')\n"
        "    except (PermissionError, MemoryError) as error:\n"
        "        told.append(type(error).__name__)\n"
        "open(sys.argv[1], 'w').write(' '.join(told))\n"
    )
    import subprocess
    import sys

    subprocess.run([sys.executable, str(tries), str(tmp_path / "told")], check=True)
    assert (tmp_path / "told").read_text() == "PermissionError " * 3 + "MemoryError"


def header(path: Path, entries: object, length: int | None = None, data: bytes = b"") -> Path:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_damaged_safetensors_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    save_safe(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-4])
    refused(path, "not a readable checkpoint")
    refused(header(path, {"a": one}, 1 << 40), "its header claims 1099511627776 bytes")
    text = json.dumps(one).encode()
    refused(header(path, b'{"a":' + text + b',"a":' + text + b"}", None, bytes(4)), "duplicate key")
    refused(header(path, {"a": {**one, "shape": [10**12]}}, None, bytes(4)), "not a readable")
    refused(header(path, {}), "holds no tensor")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "a gzip archive"),
        (b"\x93NUMPY" + bytes(20), "begins with"),
        (b"", r"begins with b'' (0 bytes)"),
    ],
)
def test_other_files_are_named_for_what_they_look_like(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    refused(tmp_path / "file", message, "expected a safetensors file or a zip file of torch.save")


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    refused(tmp_path, "cannot be read")
    refused(tmp_path / "absent", "cannot be read (No such file or directory)")


def test_the_prefix_of_data_parallel(tmp_path):
    path, one = Path("x"), torch.ones(1)
    assert without_prefix(path, {"module.a": one, "module.b": one}).keys() == {"a", "b"}
    assert without_prefix(path, {"a": one}).keys() == {"a"}
    with pytest.raises(DataError, match=r'"module.a" begins with module\., but "a" does not'):
        without_prefix(path, {"module.a": one, "a": one})
