"""A miniature of the publishers' servers: archives in their layout, and a server that misbehaves.

Archives are packed from what a kind's `draw` makes, so they are as small as that, and are described
by a catalogue entry with their own sizes, digests and counts.
"""

import contextlib
import gzip
import hashlib
import io
import ssl
import subprocess
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from servers import serve

from clsp.config.catalog import Archive, DatasetInfo, Members, dataset_info
from clsp.config.schema import KINDS
from clsp.data.members import expression
from clsp.data.patience import Patience
from clsp.runtime.registry import load, names, settings_class

FETCHED = tuple(kind for kind in names(KINDS) if settings_class(KINDS, kind).fetched)
STRAY = {"README.txt": b"not wanted", "__MACOSX/._x": b"not wanted"}


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in sorted({parent for file in files for parent in _parents(file)}):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _parents(name: str) -> list[str]:
    return [str(parent) for parent in Path(name).parents][:-1]


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def pack(name: str, files: dict[str, bytes]) -> bytes:
    """An archive of the format that its name promises."""
    if name.endswith(".zip"):
        return zip_of(files)
    return tar_of(files) if name.endswith(".tar") else gzipped(tar_of(files))


def _of_archive(archive: str, name: str, drawn: Path) -> bool:
    """VOC2007's two archives hold images of different splits in one folder."""
    if "JPEGImages" not in name:
        return True
    tested = (drawn / "VOCdevkit/VOC2007/ImageSets/Main/test.txt").read_text().split()
    return (Path(name).stem in tested) == archive.startswith("VOCtest")


def _matching(
    archive: str, home: Path, members: tuple[Members, ...]
) -> tuple[dict[str, bytes], list[Members]]:
    """Files below `home` that the list wants, and the list with their real counts."""
    found = {p.relative_to(home).as_posix(): p for p in sorted(home.rglob("*")) if p.is_file()}
    found = {name: p for name, p in found.items() if _of_archive(archive, name, home)}
    files: dict[str, bytes] = {}
    counted = []
    for listed in members:
        wanted = expression(listed.pattern)
        taken = [name for name in found if wanted.fullmatch(name) and name not in files]
        files |= {name: found[name].read_bytes() for name in taken}
        if taken:
            counted.append(Members(pattern=listed.pattern, count=len(taken)))
    return files, counted


def pack_archive(archive: Archive, drawn: Path) -> tuple[bytes, Archive]:
    """The miniature of one archive, and its entry."""
    home = drawn / archive.folder
    if not archive.packed:
        content, changes = (home / archive.name).read_bytes(), {}
    else:
        files, members = _matching(archive.name, home, archive.members)
        nested = []
        for inner in archive.nested:
            inside, counted = _matching(inner.name, home, inner.members)
            files[inner.name] = pack(inner.name, {**inside, **STRAY})
            nested.append(inner.model_copy(update={"members": tuple(counted)}))
        content = pack(archive.name, {**files, **STRAY})
        changes = {"members": tuple(members), "nested": tuple(nested)}
    facts = {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "md5": hashlib.md5(content).hexdigest(),
        "checked": "here",
        "manual": None,
    }
    return content, archive.model_copy(update={**changes, **facts})


def idx(values: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">i4").tobytes()
    return gzipped(header + values.tobytes())


def draw_fashion(folder: Path, count: int = 20) -> None:
    """Fashion-MNIST has no miniature of its own; its four files are enough."""
    stream = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        images = stream.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images))
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(labels))


def take_as_published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the reader of Fashion-MNIST expect the four files of a folder."""
    found = {path.name: gzip.decompress(path.read_bytes()) for path in folder.glob("*.gz")}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    monkeypatch.setattr("clsp.data.kinds.fashion_mnist.UNPACKED", digests)


def miniature_of(kind: str, drawn: Path, seed: int = 3) -> tuple[dict[str, bytes], DatasetInfo]:
    """Archives of a kind by name, packed from its miniature, and a catalogue entry for them."""
    drawn.mkdir(parents=True, exist_ok=True)
    if kind == "fashion_mnist":
        draw_fashion(drawn)
    else:
        load(KINDS, kind, "kind").draw(drawn, seed)
    packed = [pack_archive(archive, drawn) for archive in dataset_info(kind).archives]
    entry = dataset_info(kind).model_copy(update={"archives": tuple(a for _, a in packed)})
    return {archive.name: content for content, archive in packed}, entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # the connection ends with the answer

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Range"], self.headers["If-Range"]))
        script = self.server.script.get(self.path, [])
        behave = (script.pop(0) if len(script) > 1 else script[0]) if script else serve
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            behave(self, self.server.files.get(self.path))

    def log_message(self, *arguments):
        pass


class Site:
    """A server on this machine, in a thread. Use as a context manager.

    Attributes:
        files: Path -> content.
        script: Path -> what to do at each request, the last one from then on.
        asked: (path, Range, If-Range) of every request.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.files = self.server.files = {}
        self.script = self.server.script = {}
        self.asked = self.server.asked = []
        self.scheme = "https" if certificate else "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.005,))

    def url(self, path: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}{path}"

    def offer(self, entry: DatasetInfo, contents: dict[str, bytes]) -> DatasetInfo:
        """Serve archives and return the entry with their addresses here."""
        archives = []
        for archive in entry.archives:
            self.files[f"/{archive.name}"] = contents[archive.name]
            where = {"urls": (self.url(f"/{archive.name}"),), "hosts": ("127.0.0.1",)}
            archives.append(archive.model_copy(update=where))
        return entry.model_copy(update={"archives": tuple(archives)})

    def __enter__(self) -> "Site":
        self.thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key."""
    path = folder / "site.pem"
    line = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names_it = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*line.split(), *names_it, "-keyout", str(path), "-out", str(folder / "crt.pem")],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + (folder / "crt.pem").read_bytes())
    return path


class Watch:
    """A clock that is a second later at every look, and a sleep that only writes down."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, []

    def clock(self) -> float:
        self.now += 1.0
        return self.now


def quick(watch: Watch | None = None, **changes) -> Patience:
    """Patience for tests: http is good enough, nobody sleeps, everything is short."""
    watch = watch or Watch()
    settings = {
        "schemes": ("http",),
        "timeout": 0.15,
        "window": 20.0,
        "rate": 1000.0,
        "sleep": watch.slept.append,
        "clock": watch.clock,
    }
    return Patience(**(settings | changes))
