"""The crate: what its profiles require, digests that hold, failures that stay, no private paths."""

import base64
import json
import re
import subprocess
import sys
from uuid import UUID

import pytest
from exporting import naming_places
from results_tree import REPO, tiny_params

from clsp.export.attempts import artefacts_of
from clsp.export.crate import PROFILES, export_crate
from clsp.export.evidence import Evidence
from clsp.export.graph import Graph
from clsp.runtime.canonical import canonical_json, sha256_file
from clsp.runtime.errors import DataError, IncompleteError
from clsp.runtime.ledger import Attempt

METADATA = "ro-crate-metadata.json"
FAILED = f"urn:uuid:{UUID('f' * 32)}"


def _evidence(tree):
    return Evidence(tiny_params(), tree.results, tree.reports)


def _export(tree, name="crate", **options):
    final = tree.reports / "exports" / name
    export_crate(_evidence(tree), final, **options)
    return final


def _entities(final):
    graph = json.loads((final / METADATA).read_text())["@graph"]
    assert len({entity["@id"] for entity in graph}) == len(graph)
    return {entity["@id"]: entity for entity in graph}


def _list(value):
    return value if isinstance(value, list) else [value]


def _references(value):
    if isinstance(value, dict):
        if set(value) == {"@id"}:
            yield value["@id"]
        else:
            for inner in value.values():
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _of_type(entities, kind):
    return [entity for entity in entities.values() if kind in _list(entity["@type"])]


def _ids(entity, key):
    return [reference["@id"] for reference in _list(entity.get(key, []))]


@pytest.fixture
def exported(tree):
    return _export(tree)


def test_every_reference_leads_somewhere(exported):
    entities = _entities(exported)
    for entity in entities.values():
        for identifier in _references({k: v for k, v in entity.items() if k != "@id"}):
            assert identifier in entities or identifier.startswith("https://"), (entity, identifier)


def test_the_requirements_of_the_profiles_are_met(exported):
    entities = _entities(exported)
    root, descriptor = entities["./"], entities[METADATA]
    assert descriptor["about"] == {"@id": "./"}
    assert "https://w3id.org/ro/crate/1.1" in _ids(descriptor, "conformsTo")
    assert set(_ids(root, "conformsTo")) == set(PROFILES)
    for profile, (_, version) in PROFILES.items():
        assert profile.endswith(f"/{version}")
        assert entities[profile]["version"] == version
    assert all(root[key] for key in ("name", "description", "datePublished", "license"))

    workflow = entities[root["mainEntity"]["@id"]]
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"} <= {*workflow["@type"]}
    language = entities[workflow["programmingLanguage"]["@id"]]
    assert (language["@type"], language["name"]) == ("ComputerLanguage", "Snakemake")
    for tool in _ids(workflow, "hasPart"):
        assert entities[tool]["@type"] == "SoftwareApplication"
    steps = _of_type(entities, "HowToStep")
    assert {step["@id"] for step in steps} == set(_ids(workflow, "step"))
    assert all(entities[step["workExample"]["@id"]] for step in steps)
    for parameter in _of_type(entities, "FormalParameter"):
        assert parameter["additionalType"] in ("File", "PropertyValue")

    actions = _of_type(entities, "CreateAction")
    assert all(entities[action["instrument"]["@id"]] for action in actions)
    assert {action["@id"] for action in actions} <= set(_ids(root, "mentions"))
    jobs = {a["@id"] for a in actions} - {"#workflow-run"}
    controls = _of_type(entities, "ControlAction")
    assert {control["object"]["@id"] for control in controls} == jobs
    for control in controls:
        assert entities[control["instrument"]["@id"]]["@type"] == "HowToStep"
    (engine,) = _of_type(entities, "OrganizeAction")
    assert set(_ids(engine, "object")) == {control["@id"] for control in controls}
    assert engine["result"] == {"@id": "#workflow-run"}
    assert re.fullmatch(r"9\.\d+\.\d+", entities["#snakemake"]["softwareVersion"])


def test_every_file_is_there_or_named_by_its_digest(exported):
    entities = _entities(exported)
    parts = set(_ids(entities["./"], "hasPart"))
    held = set()
    for entity in _of_type(entities, "File"):
        identifier, sha256 = entity["@id"], entity["sha256"]
        assert identifier in parts
        if identifier.startswith("ni:///sha-256;"):
            packed = identifier.removeprefix("ni:///sha-256;") + "="
            assert base64.urlsafe_b64decode(packed).hex() == sha256
            assert entity["description"].startswith("Not in this crate")
        else:
            path = exported / identifier
            held.add(path)
            assert sha256_file(path) == sha256
            assert entity["contentSize"] == str(path.stat().st_size)
    there = {p for p in exported.rglob("*") if p.is_file() and p.name != METADATA}
    assert there == held


def test_jobs_are_told_as_their_manifests_have_them(tree, exported):
    entities = _entities(exported)
    for artefact, folder in artefacts_of(_evidence(tree)):
        predicate = artefact.predicate
        action = entities[f"urn:uuid:{UUID(predicate['run_uid'])}"]
        assert action["actionStatus"] == "http://schema.org/CompletedActionStatus"
        # The ledger notes an attempt before the job begins, and its end after the manifest.
        assert action["startTime"] <= predicate["runDetails"]["started"]
        assert action["endTime"] >= predicate["runDetails"]["finished"]
        made = {entities[i]["sha256"] for i in _ids(action, "result")}
        wanted = {subject["digest"]["sha256"] for subject in artefact.subjects.values()}
        assert made >= wanted or artefact.stage == "fetch-dataset", folder
        assert sha256_file(artefact.manifest) in made
        read = {entities[i].get("sha256") for i in _ids(action, "object")}
        assert {d["digest"]["sha256"] for d in predicate["resolvedDependencies"]} <= read
        settings = [entities[i] for i in _ids(action, "object") if i.startswith("#settings")]
        assert [s["value"] for s in settings] == [
            canonical_json(predicate["externalParameters"]["spec"])
        ]
    run = entities["#workflow-run"]
    assert run["actionStatus"] == "http://schema.org/CompletedActionStatus"
    assert any(i.endswith("report.html") for i in _ids(run, "result"))


def test_attempts_that_failed_stay_in_it(exported):
    action = _entities(exported)[FAILED]
    assert action["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert "images.npy: corrupt" in action["error"]
    assert "result" not in action


def test_a_killed_and_a_replaced_attempt_are_told_apart(tree):
    manifest = tree.run("runs", "manifest.json")
    Attempt(manifest, "e" * 32, {"stage": "pretrain-encoder"})
    again = Attempt(manifest, "d" * 32, {"stage": "pretrain-encoder"})
    again.end("completed", manifest_sha256="0" * 64)
    entities = _entities(_export(tree))
    assert entities[f"urn:uuid:{UUID('e' * 32)}"]["error"] == "killed"
    replaced = entities[f"urn:uuid:{UUID('d' * 32)}"]
    assert "a later attempt replaced what it made" in replaced["description"]
    assert "error" not in replaced


def test_nothing_private_leaves_the_machine(tree, exported):
    assert naming_places(exported) == []
    ledger = "results/tiny/ledger.jsonl"
    assert not (exported / ledger).exists()  # one of its reasons holds a path
    (entity,) = [e for e in _entities(exported).values() if e.get("name") == ledger]
    assert entity["sha256"] == sha256_file(tree.results / "ledger.jsonl")
    assert "names paths of the machine" in entity["description"]


def test_no_file_of_it_passes_for_a_manifest(exported):
    assert not list(exported.rglob("*manifest.json"))
    assert not list(exported.rglob("*failed.json"))
    assert (
        len(list(exported.rglob("*.record.json"))) + len(list(exported.rglob("record.json"))) > 20
    )


def test_the_same_records_give_the_same_bytes(tree):
    first, second = _export(tree, "first"), _export(tree, "second")
    assert (first / METADATA).read_bytes() == (second / METADATA).read_bytes()


def test_a_whole_crate_holds_arrays_and_weights(tree):
    final = _export(tree, whole=True)
    assert list(final.rglob("encoder.safetensors"))
    assert list(final.rglob("history.jsonl"))
    named = [e for e in _entities(final).values() if e["@id"].startswith("ni:")]
    assert all("names paths" in e["description"] for e in named if e["name"].startswith("results"))


@pytest.mark.parametrize("place", ["../beside.yaml", "{}/beside.yaml"])
def test_a_file_from_elsewhere_is_named_and_not_copied(tree, tmp_path, place):
    beside = tmp_path / "beside.yaml"  # the test runs in a folder next to it
    beside.write_text("a: 1\n")
    graph = Graph(_evidence(tree), whole=True)
    read = {"uri": place.format(tmp_path), "digest": {"sha256": sha256_file(beside)}}
    assert graph.read(read).startswith("ni:///sha-256;")
    assert all(entity.source != beside for entity in graph.files)


def test_an_experiment_that_is_not_finished_says_so(tree):
    for path in tree.run("runs", "").iterdir():
        if path.is_file():
            path.unlink()
    run = _entities(_export(tree))["#workflow-run"]
    assert run["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert "not finished: pretrain-encoder digits.tiny.simclr.synthetic.s1" in run["error"]


def test_what_was_changed_is_not_exported(tree):
    path = tree.reports / "tables/main.csv"
    path.write_text(path.read_text() + "x")
    with pytest.raises(DataError, match=r"main\.csv: expected sha256"):
        _export(tree)
    path.unlink()
    with pytest.raises(DataError, match=r"main\.csv: expected .* found nothing"):
        _export(tree)
    assert not (tree.reports / "exports/crate").exists()


def test_results_of_which_nothing_was_recorded_are_refused(tree):
    (tree.results / "ledger.jsonl").write_text("")
    with pytest.raises(IncompleteError, match=r"manifest\.json: its attempt .* not in the ledger"):
        _export(tree)


def _command(*arguments):
    command = [sys.executable, "-m", "clsp", "export", *arguments]
    spec = canonical_json(tiny_params().canonical())
    return subprocess.run([*command, "--spec", spec], capture_output=True, text=True)


def test_the_command_writes_where_the_profile_is_and_leaves_the_audit_content(tree, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    for what in ("crate", "models"):
        done = _command(what)
        assert done.returncode == 0, done.stderr
    models = tree.reports / "exports/models"
    assert len(list(models.glob("*/README.md"))) == 6

    from clsp.audit.checks import a03_file_set, a29_formats
    from clsp.audit.suite import Suite

    suite = Suite(tiny_params(), tree.results, tree.reports, None)
    for check in (a03_file_set, a29_formats):
        assert [f.line for f in check.check(suite) if "exports" in f.file] == []
    (tree.reports / "exports/crate/run.py").write_text("print()\n")
    (stray,) = [f for f in a29_formats.check(suite) if "exports" in f.file]
    assert stray.file.endswith("run.py")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("models", "--run", "digits.tiny.simclr.nine.s0"), 2, 'did you mean "digits.tiny'),
        (("models", "--whole"), 2, "--whole is for"),
        (("crate", "--run", "x"), 2, "for `export models`"),
        (("models", "--source", "http://example.org"), 2, "expected an https address"),
        (("models", "--results", "elsewhere"), 4, "no such folder"),
    ],
)
def test_the_command_refuses_in_one_line(tree, monkeypatch, arguments, code, said):
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    done = _command(*arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
