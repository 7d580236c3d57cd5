"""`python -m clsp data` where something odd lies about, and what a file needs."""

import json

from clsp.config.catalog import dataset_info
from clsp.data import command
from clsp.data.command import main
from clsp.runtime.manifest import PREDICATE


def test_one_bad_item_does_not_hide_the_others(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLSP_DOWNLOADS", raising=False)
    monkeypatch.setenv("FASHION_MNIST_ROOT", str(tmp_path / "nowhere"))
    (tmp_path / "downloads" / dataset_info("pets").archives[0].name).mkdir(parents=True)
    odd = {"predicateType": PREDICATE, "predicate": {"schema_version": 1}}
    home = tmp_path / "results/x/data/prepared/cifar10"
    home.mkdir(parents=True)
    (home / "manifest.json").write_text(json.dumps(odd))
    assert main(["--json"]) == 0
    states = {state["name"]: state for state in json.loads(capsys.readouterr().out)}
    assert states["pets"]["state"] == "corrupt" and "is a folder" in states["pets"]["note"]
    assert "nowhere" in states["fashion_mnist"]["note"]
    assert "cifar10/manifest.json: not understood" in states["cifar10"]["note"]
    assert "not understood" not in states["cifar100"]["note"]


def test_a_file_needs_what_no_package_has_installed(request, monkeypatch, tmp_path):
    params = tmp_path / "own.yaml"
    params.write_text(
        f"extends: {request.config.rootpath / 'params.yaml'}\nprofile: own\n"
        "datasets:\n"
        "  clothes: {kind: fashion_mnist, size: 28}\n"
        "  cifar10: {kind: cifar10, size: 32, source: download}\n"
    )
    given = command._parser().parse_args(["fetch", "--params", str(params)])
    monkeypatch.setattr(command, "installed_copy", lambda kind: None)
    assert set(command._wanted(given)) == {"cifar10", "fashion_mnist"}
    monkeypatch.setattr(
        command, "installed_copy", lambda kind: tmp_path if kind == "fashion_mnist" else None
    )
    assert command._wanted(given) == ["cifar10"]
