"""Nothing private is packed, wherever it stands; and nothing ordinary is taken for it."""

import io
import json
import sqlite3
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from bundling import members_of, pack
from faults import Tree
from safetensors.numpy import save

from clsp.bundle.private import FORMS, words_of_machine
from clsp.bundle.scan import Scanner
from clsp.runtime.errors import ClspError
from clsp.runtime.ledger import reason_of
from clsp.runtime.places import place_of_file, without_places

HOME = "/home/jane.doe/work"


def found(content: bytes | str, name: str = "results/tiny/a.json", words: tuple = ()) -> set[str]:
    data = content.encode() if isinstance(content, str) else content
    return {hit.what for hit in Scanner(words).member(name, io.BytesIO(data))}


PRIVATE = {
    "/home/jane.doe/clsp/results/x.npy": "a home folder",
    '{"path":"/Users/jane/clsp"}': "a home folder",
    "error: C:\\\\Users\\\\Jane\\\\clsp": "a folder of Windows",
    "file:///srv/data/x.csv": "an address of a local file",
    '{"uri":"/data/jane/cifar"}': "an absolute path",
    "saved to /tmp/pytest-1/x.npy": "an absolute path",
    '{"uri":"/zfs7/pool/x/y.npy"}': "an absolute path",
    "key AKIAIOSFODNN7EXAMPLE here": "a key of AWS",
    "ghp_0123456789abcdefghijklmnopqrstuvwxyzAB": "a token of GitHub",
    "glpat-abcdefghij0123456789": "a token of GitLab",
    "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH": "a token of Hugging Face",
    "sk-proj-abcdefghijklmnopqrstuvwx": "a key of an API",
    "xoxb-123456789012-abcdefghij": "a token of Slack",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghijkl": "a web token",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "a private key",
    "postgresql://jane:hunter2@db/mlflow": "a password in an address",
    '{"api_token": "abcdef123456"}': "a secret by its name",
    '{"MLFLOW_TRACKING_PASSWORD": "hunter22"}': "a secret by its name",
    "WANDB_API_KEY=0123456789abcdef": "a secret by its name",
    "sqlite:////home/jane/mlflow.db": "a home folder",
    "/zfs7/home/jane/x": "a home folder",
    "artifacts%3D%2Fhome%2Fjane%2Fx": "a home folder",
    r'{"path":"\u002fhome\u002fjane\u002fx"}': "a home folder",
    "<td>/home/jane/x</td>": "a home folder",
    "<td>/scratch/jane</td>": "an absolute path",
    "{&#34;api_token&#34;: &#34;abcdef123456&#34;}": "a secret by its name",
    "base64,/home/jane/x": "a home folder",
}
ORDINARY = [
    '{"moco.key": "shuffled", "clsp.key": "9e107d9d372bb6826bd81d3542a419d6"}',
    '{"key_encoder": "momentum", "keys": ["query", "keys"], "tokens": 128}',
    '{"mask_token": "learned", "cls_token": null, "secret": null, "token": "none"}',
    '{"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}',
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "<td>1/2</td></tr></table> and/or 10/20/30 image/png application/json",
    '{"arguments": {"root": "results/demo"}, "user": "the reader"}',
    "https://www.example.org/home/people/x.html and https://example.org/~jane/root.html",
    "w/o labels; mean +/- std; km/h; https://arxiv.org/abs/2002.05709/v1",
    "url(data:image/png;base64,iVBORw0KGgo/home/AAAA/tmp/BBBB+/opt/CCCC==)",
    "results/demo/runs/a.b.c/checkpoints/final.safetensors",
    '{"lr_schedule": "cosine/epoch", "stem": "small", "password_free": true}',
    r"\frac{a}{b} \texttt{simclr/moco} \href{https://x.org/tmp/a}{y}",
    'M 10 10 L 20 20 /> <a href="#run/x">z</a> url(#a)',
    "user@example.org wrote: task-9 risk-neutral disk-based-evaluation-of-things",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_what_is_private(text: str) -> None:
    assert PRIVATE[text] in found(text)


@pytest.mark.parametrize("text", ORDINARY)
def test_what_is_ordinary(text: str) -> None:
    assert found(text) == set()


def _npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _png(kind: bytes, content: bytes) -> bytes:
    def chunk(name: bytes, inside: bytes) -> bytes:
        check = struct.pack(">L", zlib.crc32(name + inside))
        return struct.pack(">L", len(inside)) + name + inside + check

    head = chunk(b"IHDR", struct.pack(">LLBBBBB", 1, 1, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0\0\0\0"))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(kind, content) + body + chunk(b"IEND", b"")


def _sqlite(path: Path) -> bytes:
    with sqlite3.connect(path) as database:
        database.execute("create table runs (uri text)")
        database.execute("insert into runs values (?)", (f"{HOME}/mlartifacts",))
    return path.read_bytes()


def test_inside_of_every_format(tmp_path: Path) -> None:
    numbers = np.zeros(4, np.float32)
    zipped = zlib.compress(HOME.encode() + b"/x")
    files = {
        "a.npz": _npz(names=np.array([f"{HOME}/a.png"])),
        "b.npz": _npz(names=np.array([f"{HOME}/a.png".encode()])),
        "a.npy": _npy(np.array([f"{HOME}/a.png", "b"])),
        "b.npy": _npy(np.array([(1, f"{HOME}/a")], [("n", "i4"), ("t", "U40")])),
        "a.safetensors": save({"w": numbers}, {"source": f"{HOME}/x.pt"}),
        "a.png": _png(b"tEXt", b"Source\0" + HOME.encode() + b"/x"),
        "b.png": _png(b"zTXt", b"Source\0\0" + zipped),
        "c.png": _png(b"iTXt", b"Source\0\1\0\0\0" + zipped),
        "d.png": _png(b"tEXt", b"x\0y") + HOME.encode() + b"/x",
        "a.db": _sqlite(tmp_path / "a.db"),
        "a.txt": f"{HOME}/x".encode("utf-16"),
        "a.bin": b"\1\2" + f"{HOME}/x".encode("utf-16-le"),
        "a.arrow": b"ARROW1\0\0" + HOME.encode() + b"/x",
        "a.csv": f"a,b\n1,{HOME}/x\n",
        f"{HOME[1:]}/a.json": "{}",
    }
    for name, content in files.items():
        member = name if name.startswith("home") else f"results/tiny/{name}"
        assert found(content, f"/{member}" if member == name else member), name
    clean = {
        "a.npz": _npz(logits=np.ones((9, 3), np.float32)),
        "a.npy": _npy(np.frombuffer(f"{HOME}/a.png ".encode(), np.uint8)),  # pixels
        "a.safetensors": save({"tmp/work": numbers}, {"step": "3"}),
        "a.png": _png(b"tEXt", b"Software\0Matplotlib version 3, https://matplotlib.org/"),
        "a.arrow": b"ARROW1\0\0" + bytes(range(256)) * 100,
    }
    for name, content in clean.items():
        assert found(content, f"results/tiny/{name}") == set(), name


def test_a_text_that_lies_across_two_blocks() -> None:
    before = " " * ((1 << 22) - 6)
    assert found(f"{before}{HOME}/x", "results/a.txt") == {"a home folder"}


def test_damaged_files_are_searched_as_they_are() -> None:
    for name in ("a.npz", "a.npy", "a.safetensors", "a.png"):
        assert found(b"\0\1 broken " + HOME.encode() + b"/x", f"results/{name}"), name
        assert found(b"\0\1 broken", f"results/{name}") == set()


def test_words_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "janedoe")
    monkeypatch.setenv("HOME", "/home/janedoe")
    monkeypatch.setenv("HF_TOKEN", "a-quite-ordinary-phrase")
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-rack-07.lab.example.org")
    words = tuple(words_of_machine(()))
    assert found("made by janedoe", words=words) == {"the name of the user"}
    assert found("janedoes and xjanedoe", words=words) == set()
    assert found("on gpu-rack-07, slot 3", words=words) == {"the name of this machine"}
    assert found("x = a-quite-ordinary-phrase", words=words) == {"a secret of the environment"}
    raw = b"train_list janedoe\n/home/somebody/x"
    published = "results/demo/data/raw/cifar10/files/readme.txt"
    assert found(raw, published, words) == {"the name of the user"}


def test_users_and_machines_that_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "simclr")
    monkeypatch.setattr("socket.gethostname", lambda: "vm")
    known = [word.text for word in words_of_machine({"simclr", "moco"})]
    assert b"simclr" not in known and b"vm" not in known and b"root" not in known


def test_a_secret_is_not_printed() -> None:
    hit = Scanner(()).member("a.json", io.BytesIO(b'{"api_token": "abcdef123456"}'))[0]
    assert "abcdef123456" not in hit.line and hit.line.startswith("a.json: a secret by its name")


def test_the_bundle_of_a_tree_names_no_folder_and_no_time(bundle: Path, original: Path) -> None:
    for entry, text in members_of(bundle):
        if entry.filename.endswith((".json", ".jsonl", ".csv", ".html", ".md", ".tex")):
            assert str(original).encode() not in text and b"/tmp" not in text, entry.filename
    kept = next(text for entry, text in members_of(bundle) if entry.filename == "mlflow.json")
    told = json.loads(kept)["runs"]
    keys = {"status", "deleted", "values", "points", "params"}
    assert told and all(run.keys() == keys for run in told.values())


PLANTED = {
    "reports": ("reports/tiny/note.md", f"see {HOME}/notes"),
    "ledger": ("results/tiny/ledger.jsonl", f'{{"reason":"{HOME}/x: no such file"}}'),
    "array": ("results/tiny/data/digits/names.npz", _npz(n=np.array([f"{HOME}/a"]))),
    "secret": ("results/tiny/data/digits/a.json", '{"auth_token":"abc123def456"}'),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_bundle_with_something_private_is_not_written(
    kind: str, tree: Tree, tmp_path: Path
) -> None:
    name, content = PLANTED[kind]
    path = tree.results.parents[1] / name
    held = path.read_bytes() if path.exists() else b""
    path.write_bytes(held + (content.encode() if isinstance(content, str) else content))
    out = tmp_path / "packed" / "a.zip"
    out.parent.mkdir()
    with pytest.raises(ClspError, match="private things are in it") as told:
        pack(tree, out)
    assert told.value.exit_code == 1 and name in str(told.value)
    assert [each.name for each in out.parent.iterdir()] == ["params.yaml"]


def test_stages_name_files_without_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert place_of_file(Path("results/demo/a.npy")) == "results/demo/a.npy"
    assert place_of_file(tmp_path / "results/demo/a.npy") == "results/demo/a.npy"
    assert place_of_file(Path("/mnt/x/results/demo/runs/a.npy")) == "results/demo/runs/a.npy"
    assert place_of_file(Path("/mnt/x/results/demo")) == "results/demo"
    assert place_of_file(Path("/mnt/x/weights.pt")) == "/mnt/x/weights.pt"
    error = OSError(f"{tmp_path}/results/a: bad; {Path.home()}/b, /opt/x/y/z.npy (s3://b/c/d)")
    assert reason_of(error) == "OSError: results/a: bad; b, .../z.npy (s3://b/c/d)"
    assert (
        without_places("10/20, and/or, https://x.org/a/b/c") == "10/20, and/or, https://x.org/a/b/c"
    )


def test_every_form_says_what_it_is() -> None:
    assert all(form.what for form in FORMS)
    with zipfile.ZipFile(io.BytesIO(_npz(a=np.zeros(1)))) as archive:
        assert archive.namelist() == ["a.npy"]
