"""`python -m clsp data`: what it lists, fetches and verifies, and its exit codes."""

import json
from functools import partial

import numpy as np
import pytest
from mirror import FETCHED, Site, miniature_of, quick
from servers import status

from clsp.__main__ import main as clsp
from clsp.config.catalog import Counts, dataset_info, known_kinds
from clsp.config.schema import KINDS, DatasetSpec
from clsp.data import command, fetch, survey, verify
from clsp.data.command import amount, main, table
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import write_manifest
from clsp.runtime.registry import load


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLSP_DOWNLOADS", raising=False)
    monkeypatch.setattr(command, "obtain_all", partial(fetch.obtain_all, patience=quick()))


@pytest.fixture
def use(monkeypatch):
    """Puts an entry in the catalogue's place, wherever it is read."""

    def put(kind, entry):
        for module in (command, fetch, survey, verify):
            known = lambda name: entry if name == kind else dataset_info(name)  # noqa: E731
            monkeypatch.setattr(module, "dataset_info", known)
        return entry

    return put


@pytest.fixture
def dropped(tmp_path, use):
    """Drops the miniature archives of a kind into the folder; counts are the miniature's."""

    def drop(kind):
        contents, entry = miniature_of(kind, tmp_path / "drawn")
        (tmp_path / "downloads").mkdir(exist_ok=True)
        for name, content in contents.items():
            (tmp_path / "downloads" / name).write_bytes(content)
        return use(kind, counted(kind, entry, tmp_path / "drawn"))

    return drop


def counted(kind, entry, drawn):
    """The entry with what its reader finds in the miniature, protocol by protocol."""
    counts, classes = {}, ()
    for name, known in entry.counts.items():
        options = {"source": "miniature", "seed": 3, **known.options}
        if kind == "caltech101" and name == "ssl_transfer":
            continue  # its reader compares real files with the published list
        settings = DatasetSpec(kind=kind, size=8, **options).settings()
        source = load(KINDS, kind, "kind").read(settings, drawn)
        classes = classes or source.classes
        unlabelled = sum(item.label == -1 for item in source.splits["train"])
        counts[name] = Counts(
            options={"seed": 3, **known.options},
            classes=len(source.classes),
            unlabelled=unlabelled or None,
            **{split: len(items) for split, items in source.splits.items()},
        )
    return entry.model_copy(update={"counts": counts, "class_names": classes})


def listed(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return {state["name"]: state for state in json.loads(capsys.readouterr().out)}


def artefact(folder, stage, spec, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    predicate = {"step": stage, "externalParameters": {"spec": spec.canonical()}}
    write_manifest(folder / "manifest.json", {n: folder / n for n in files}, [], predicate)


def test_it_is_a_command(capsys):
    assert clsp(["data"]) == 0
    shown = capsys.readouterr().out
    for kind in known_kinds():
        assert f"\n{kind} " in shown
    assert "cars: The publisher's server is gone" in shown and "Archives: downloads" in shown
    with pytest.raises(SystemExit) as left:
        clsp(["data", "--help"])
    assert left.value.code == 0 and "CLSP_DOWNLOADS" in capsys.readouterr().out


def test_states_of_kinds_of_which_nothing_is_here(capsys, monkeypatch):
    monkeypatch.setattr("clsp.data.kinds.fashion_mnist.INSTALLED", ())
    states = {name: state["state"] for name, state in listed(capsys).items()}
    assert states["cifar10"] == states["sun397"] == states["fashion_mnist"] == "absent"
    assert states["cars"] == states["imagenet100"] == "manual step needed"
    assert states["digits"] == "built in" and states["image_folder"] == "your own folder"


def test_an_installed_copy_counts(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("clsp.data.kinds.fashion_mnist.installed", lambda: tmp_path)
    state = listed(capsys)["fashion_mnist"]
    assert state["state"] == "fetched" and str(tmp_path) in state["note"]


def test_from_absent_to_prepared_and_corrupt(dropped, capsys, tmp_path):
    entry = dropped("pets")
    state = listed(capsys)["pets"]
    assert state["state"] == "fetched"
    assert state["size"] == sum(archive.size for archive in entry.archives)
    assert state["license"] == "CC BY-SA 4.0" and state["protocols"] == ["official"]

    spec = DatasetSpec(kind="pets", size=8, source="download", seed=0)
    home = tmp_path / "results/demo/data/prepared/any"
    artefact(home, "prepare-dataset", spec, {"images.npy": b"1234", "labels.npy": b"5"})
    state = listed(capsys)["pets"]
    assert state["state"] == "prepared" and state["prepared"] == ["results/demo/data/prepared/any"]
    assert state["size"] == sum(archive.size for archive in entry.archives) + 5

    (home / "images.npy").write_bytes(b"123")
    state = listed(capsys)["pets"]
    assert state["state"] == "corrupt" and "images.npy: 3 bytes, expected 4" in state["note"]
    (home / "images.npy").unlink()
    assert "images.npy: missing" in listed(capsys)["pets"]["note"]


def test_a_prepared_miniature_is_not_the_dataset(dropped, capsys, tmp_path):
    dropped("pets")
    spec = DatasetSpec(kind="pets", size=8, source="miniature", seed=0)
    artefact(tmp_path / "results/demo/data/prepared/m", "prepare-dataset", spec, {"x": b"1"})
    assert listed(capsys)["pets"]["state"] == "fetched"


def test_archives_that_are_not_whole(dropped, capsys, tmp_path):
    first = dropped("pets").archives[0]
    path = tmp_path / "downloads" / first.name
    content = path.read_bytes()
    path.rename(tmp_path / "downloads" / f"{first.name}.part")
    state = listed(capsys)["pets"]
    assert state["state"] == "partial"
    assert [a["state"] for a in state["archives"]] == ["partial", "whole"]
    path.write_bytes(content[:-1])
    assert listed(capsys)["pets"]["state"] == "corrupt"
    path.write_bytes(bytes(len(content)))
    assert listed(capsys)["pets"]["state"] == "fetched"  # a look at sizes, no more
    state = listed(capsys, "list", "--check")["pets"]
    assert state["state"] == "corrupt" and "sha256 is" in state["note"]


def test_unpacked_files_are_enough(use, capsys, tmp_path):
    spec = DatasetSpec(kind="dtd", size=8, source="download", seed=0)
    home = tmp_path / "results/x/data/raw/dtd"
    artefact(home, "fetch-dataset", spec, {"files/a": b"1"})
    (tmp_path / "results/x/data/raw/other").mkdir()
    (tmp_path / "results/x/data/raw/other/manifest.json").write_text("{")
    state = listed(capsys)["dtd"]
    assert state["state"] == "fetched" and state["fetched"] == [str(home.relative_to(tmp_path))]


def test_verifying_where_the_archives_cannot_be_unpacked(dropped, capsys, tmp_path, monkeypatch):
    dropped("cifar10")
    rooms = []
    real = verify.tempfile.TemporaryDirectory
    monkeypatch.setattr(verify.os, "access", lambda *asked: False)
    monkeypatch.setattr(
        verify.tempfile,
        "TemporaryDirectory",
        lambda dir, prefix: rooms.append(dir) or real(dir=dir, prefix=prefix),
    )
    assert main(["verify", "cifar10"]) == 0 and rooms == [None]


PARAMS = """
extends: {base}
profile: own
datasets:
  mine: {{kind: image_folder, size: 8, root: {root}}}
  absent: {{kind: image_folder, size: 8, root: {root}/gone}}
  cifar10: {{kind: cifar10, size: 32, source: download, seed: 0}}
"""


@pytest.fixture
def params(tmp_path, request):
    base = request.config.rootpath / "params.yaml"
    path = tmp_path / "own.yaml"
    path.write_text(PARAMS.format(base=base, root=tmp_path))
    return path


def test_the_datasets_of_a_file(params, capsys, tmp_path):
    spec = DatasetSpec(kind="cifar10", size=32, source="download", seed=0)
    for name in ("cifar10", "another"):
        home = tmp_path / f"results/own/data/prepared/{name}"
        artefact(home, "prepare-dataset", spec, {"x": b"1"})
    states = listed(capsys, "--params", str(params))
    assert states["mine"]["state"] == "your own folder"
    assert states["absent"]["state"] == "manual step needed"
    assert "gone: no such folder" in states["absent"]["note"]
    assert states["cifar10"]["prepared"] == ["results/own/data/prepared/cifar10"]
    assert states["digits"]["state"] == "built in"
    assert {s["state"] for n, s in states.items() if n.endswith("-mini")} == {"drawn when needed"}
    assert main(["list", "--params", str(params)]) == 0
    assert "mine (image_folder)" in capsys.readouterr().out


def test_fetching(use, capsys, tmp_path):
    contents, entry = miniature_of("flowers102", tmp_path / "drawn")
    with Site() as site:
        use("flowers102", site.offer(entry, contents))
        assert main(["fetch", "flowers102"]) == 0
        shown = capsys.readouterr().out
        assert site.url("/setid.mat") in shown and "published sha256" in shown
        assert main(["fetch", "flowers102", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert {record["url"] for record in records} == {"local"}
    assert [record["name"] for record in records] == list(contents)


def test_what_a_file_needs_is_fetched(use, params, capsys, tmp_path):
    contents, entry = miniature_of("cifar10", tmp_path / "drawn")
    with Site() as site:
        use("cifar10", site.offer(entry, contents))
        assert main(["fetch", "--params", str(params)]) == 0
        assert [path for path, _, _ in site.asked] == ["/cifar-10-binary.tar.gz"]
    assert capsys.readouterr().out.count("cifar10 ") == 1


def test_one_failure_does_not_stop_the_others(use, capsys, tmp_path):
    contents, entry = miniature_of("pets", tmp_path / "drawn")
    with Site() as site:
        use("pets", site.offer(entry, contents))
        site.script["/images.tar.gz"] = [status(404)]
        with pytest.raises(DataError, match=r"images\.tar\.gz could not be downloaded"):
            main(["fetch", "pets"])
    assert (tmp_path / "downloads" / "annotations.tar.gz").is_file()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["fetch"], "name a kind"),
        (["fetch", "cifar"], 'no entry for kind "cifar"'),
        (["fetch", "digits"], "nothing to fetch"),
        (["fetch", "pets", "--params", "x"], "exclude each other"),
        (["list", "--params", "gone.yaml"], r"gone\.yaml: cannot be read"),
        (["verify", "nothing"], 'no entry for kind "nothing"'),
        (["verify", "image_folder", "--root", "x"], "no published counts"),
        (["verify", "imagenet100"], "--root is missing"),
        (["verify", "pets", "--root", "x"], 'unknown key "root"'),
        (["verify", "digits", "--images", "-1"], "expected 0 or more"),
    ],
)
def test_wrong_requests(arguments, match):
    with pytest.raises(ConfigError, match=match):
        main(arguments)


@pytest.mark.parametrize("arguments", [["verify"], ["nonsense"], ["list", "pets"]])
def test_wrong_usage(arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


@pytest.mark.parametrize("kind", FETCHED)
def test_every_kind_is_verified_from_its_archives(kind, dropped, capsys, tmp_path):
    entry = dropped(kind)
    assert main(["verify", kind, "--images", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["protocol"] for row in rows} == set(entry.counts)
    assert all(row["ok"] for row in rows)
    for name in entry.counts:
        what = [row["what"] for row in rows if row["protocol"] == name]
        assert what[:4] == ["classes", "train", "val", "test"] and what[-1] == "images"
    assert ("multi-label" in {row["what"] for row in rows}) is (kind == "voc2007")
    assert not [p for p in (tmp_path / "downloads").iterdir() if p.name.startswith(".verify")]


def test_local_kinds_are_verified_as_they_are(capsys):
    assert main(["verify", "digits"]) == 0
    assert "6 of 6 as published" in capsys.readouterr().out


def test_differences_are_told(dropped, use, capsys):
    entry = dropped("pets")
    counts = {"official": entry.counts["official"].model_copy(update={"train": 81, "classes": 5})}
    names = ("Abyssinian", "beagle", *entry.class_names[2:])
    use("pets", entry.model_copy(update={"counts": counts, "class_names": names}))
    assert main(["verify", "pets"]) == 1
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines() if line.endswith("WRONG")]
    assert lines[0] == ["pets", "official", "train", "81", "80", "WRONG"]
    assert "'beagle' as class 1" in shown and "'american bulldog'" in shown
    assert len(lines) == 2


def test_a_broken_image_is_named_once(dropped, capsys, tmp_path, monkeypatch):
    entry = dropped("dtd")
    spec = DatasetSpec(kind="dtd", size=8, source="download", seed=0)
    home = tmp_path / "results/demo/data/raw/dtd"
    files = {
        f"files/{p.relative_to(tmp_path / 'drawn')}": p.read_bytes()
        for p in (tmp_path / "drawn").rglob("*")
        if p.is_file()
    }
    broken = next(name for name in files if name.endswith(".jpg"))
    artefact(home, "fetch-dataset", spec, files | {broken: files[broken][:200]})
    for archive in entry.archives:  # the unpacked files are enough
        (tmp_path / "downloads" / archive.name).unlink()
    assert main(["verify", "dtd", "--every-image"]) == 1
    shown = capsys.readouterr().out
    assert shown.count("not a readable image") == 1 and shown.count("WRONG") == 1


def test_what_is_not_here_is_not_downloaded(use, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("clsp.data.kinds.fashion_mnist.INSTALLED", ())
    for kind in ("cifar10", "fashion_mnist"):
        assert main(["verify", kind]) == 1
        assert "run python -m clsp data fetch first" in capsys.readouterr().out


def test_a_wrong_archive_is_told(dropped, capsys, tmp_path):
    archive = dropped("cifar10").archives[0]
    path = tmp_path / "downloads" / archive.name
    path.write_bytes(bytes(path.stat().st_size))
    assert main(["verify", "cifar10"]) == 1
    assert "sha256 is" in capsys.readouterr().out


def test_images_without_three_channels_are_faults():
    item = verify.Item(lambda: np.zeros((4, 4), np.uint8), 0, "grey")
    assert "shape (4, 4)" in verify._fault(item)


def test_amounts_and_tables():
    assert [amount(n) for n in (0, 999, 1000, 2_753_340_328)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.8 GB",
    ]
    assert table(("a", "b"), [("xx", "y")]) == "a   b\nxx  y\n"
