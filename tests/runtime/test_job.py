"""The path from a command line to an artefact, with a toy stage."""

import json
import os
import subprocess
import sys

import pytest

from clsp.config.strict import PositiveInt, Strict
from clsp.job import Call, run
from clsp.runtime import leftovers
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import read_manifest
from clsp.runtime.stage import Input, Inputs, Outcome, Output, Scratch, parameters


class ToySpec(Strict):
    """Spec of the toy stage."""

    count: PositiveInt


def produce(spec: ToySpec, numbers: Output) -> Outcome:
    """Write some numbers."""
    numbers.write_text("\n".join(str(i) for i in range(spec.count)))
    return Outcome(metrics={"count": spec.count})


def total(
    spec: ToySpec, source: Input, extra: Inputs, shard: str, result: Output, scratch: Scratch
) -> Outcome:
    """Add numbers up."""
    scratch.mkdir(parents=True)
    values = [int(line) for line in source.path("numbers.txt").read_text().split()]
    result.write_text(str(sum(values)))
    return Outcome(metrics={"sum": sum(values)}, facts={"extra": len(extra), "shard": shard})


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _produce(home, spec='{"count": 4}'):
    arguments = {"spec": spec, "numbers": home / "a" / "numbers.txt"}
    return run(Call("produce", produce, arguments, home / "a" / "manifest.json", "c0de", 1))


def _total(home, **changes):
    arguments = {
        "spec": '{"count": 1}',
        "source": [home / "a" / "numbers.txt", home / "a" / "manifest.json"],
        "extra": [],
        "shard": "1-of-2",
        "result": home / "b" / "sum.txt",
        "scratch": home / "scratch",
        **changes,
    }
    return run(Call("total", total, arguments, home / "b" / "manifest.json", "c0de", 1))


def test_parameters_are_read_from_the_signature():
    kinds = {p.name: p.kind for p in parameters(total)}
    assert kinds == {
        "spec": "spec",
        "source": "input",
        "extra": "inputs",
        "shard": "value",
        "result": "output",
        "scratch": "scratch",
    }


def test_an_artefact_records_what_made_it_and_from_what(home):
    first = _produce(home)
    second = _total(home)
    assert (home / "b" / "sum.txt").read_text() == "6"
    assert second.metrics == {"sum": 6}
    dependency = second.predicate["resolvedDependencies"]
    assert dependency[0]["digest"] == first.subjects["numbers.txt"]["digest"]
    internal = second.predicate["internalParameters"]
    assert internal["code"] == "c0de"
    assert internal["lock_sha256"]
    assert internal["git_commit"] is None or len(internal["git_commit"]) == 40
    assert second.predicate["externalParameters"]["arguments"] == {"shard": "1-of-2"}
    assert not (home / "scratch").exists()
    assert read_manifest(second.manifest).statement == second.statement


def test_a_corrupt_input_stops_the_job_before_it_starts(home):
    _produce(home)
    (home / "a" / "numbers.txt").write_text("9")
    with pytest.raises(DataError, match=r"numbers\.txt: corrupt"):
        _total(home)
    assert not (home / "b" / "sum.txt").exists()


def test_a_failed_stage_leaves_neither_outputs_nor_manifest(home):
    _produce(home)
    _total(home)
    (home / "a" / "numbers.txt").unlink()
    with pytest.raises(DataError, match="missing"):
        _total(home)
    assert not (home / "b" / "manifest.json").exists()


def _produce_as(home, name):
    arguments = {"spec": '{"count": 4}', "numbers": home / "a" / name}
    return run(Call("produce", produce, arguments, home / "a" / "manifest.json", "c0de", 1))


@pytest.mark.parametrize("who_removes", ["the job", "Snakemake"])
def test_files_that_an_artefact_no_longer_has_are_removed(home, who_removes):
    _produce(home)
    (home / "a" / "mine.txt").write_text("of nobody")
    if who_removes == "Snakemake":
        (home / "a" / "manifest.json").unlink()
    artefact = _produce_as(home, "below/numbers.npy")
    found = {p.relative_to(home / "a").as_posix() for p in (home / "a").rglob("*") if p.is_file()}
    assert found == {"mine.txt", "below/numbers.npy", "manifest.json"}
    artefact.verify()
    _produce(home)
    assert not (home / "a" / "below" / "numbers.npy").exists()


def test_nothing_is_removed_before_the_new_artefact_is_there(home):
    _produce(home)
    with pytest.raises(ConfigError):
        arguments = {"spec": '{"count": 0}', "numbers": home / "a" / "other.txt"}
        run(Call("produce", produce, arguments, home / "a" / "manifest.json", "c0de", 1))
    assert (home / "a" / "numbers.txt").exists()


def test_what_other_artefacts_of_the_folder_have_stays(home):
    _produce(home)
    arguments = {"spec": '{"count": 4}', "numbers": home / "a" / "numbers.txt"}
    run(Call("produce", produce, arguments, home / "a" / "x.manifest.json", "c0de", 1))
    _produce_as(home, "other.txt")
    assert (home / "a" / "numbers.txt").exists()


@pytest.mark.parametrize("name", ["../precious.txt", "link.txt", "linked/precious.txt", "/", ""])
def test_only_files_below_the_folder_are_removed_and_links_are_not_followed(home, name):
    artefact = _produce(home)
    for folder in (home, home / "elsewhere"):
        folder.mkdir(exist_ok=True)
        (folder / "precious.txt").write_text("keep")
    (home / "a" / "link.txt").symlink_to(home / "precious.txt")
    (home / "a" / "linked").symlink_to(home / "elsewhere")
    leftovers.sweep(artefact, {name, str(home / "precious.txt")})
    assert (home / "precious.txt").read_text() == "keep"
    assert (home / "elsewhere" / "precious.txt").read_text() == "keep"
    assert (home / "a" / "link.txt").is_symlink()
    artefact.verify()


@pytest.mark.parametrize("text", ["", "{}", "5", "[5, null]", "\xff"])
def test_a_damaged_note_of_what_was_made_is_ignored(home, text):
    _produce(home)
    (note,) = leftovers.NOTES.iterdir()
    note.write_text(text, encoding="latin-1")
    _produce_as(home, "other.txt").verify()
    assert json.loads(note.read_text()) == ["other.txt"]


def test_bad_flags_are_configuration_errors(home):
    with pytest.raises(ConfigError, match=r'unknown key "cuont" \(did you mean "count"\?\)'):
        _produce(home, '{"cuont": 4}')
    with pytest.raises(ConfigError, match=r"count: .*greater than or equal to 1, found 0"):
        _produce(home, '{"count": 0}')
    with pytest.raises(ConfigError, match="--spec: not valid JSON"):
        _produce(home, "{")
    _produce(home)
    with pytest.raises(ConfigError, match="outputs must lie beside or below"):
        _total(home, result=home / "elsewhere.txt")
    with pytest.raises(ConfigError, match="expected one artefact, found 0"):
        _total(home, source=[])


def _clsp(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "clsp", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_help_lists_every_stage():
    done = _clsp("--help")
    assert done.returncode == 0
    for word in ("prepare-dataset", "generate-shard", "pretrain-encoder", "audit", "check"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["pretrain-encodr"],
            2,
            'unknown command "pretrain-encodr" (did you mean "pretrain-encoder"?)',
        ),
        (["check", "absent.yaml"], 2, "absent.yaml: cannot be read"),
        (["provenance", "fly", "demo"], 2, "invalid choice"),
    ],
)
def test_usage_errors_end_with_code_2_and_no_traceback(arguments, code, message):
    done = _clsp(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_spec_can_come_from_a_file(home):
    (home / "spec.json").write_text(json.dumps({"count": 2}))
    artefact = _produce(home, f"@{home / 'spec.json'}")
    assert artefact.spec == {"count": 2}
