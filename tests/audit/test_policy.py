"""What no flag and no missing file may do: make a verdict better, change what is audited, pass."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from auditing import audit, ids, read_only, state
from faults import FAULTS, Tree
from replaying import StandIn

from clsp.audit.checks.a31_histogram import BALANCED, _problems, published_counts
from clsp.audit.level import LEVELS
from clsp.config.catalog import dataset_info
from clsp.config.schema import DatasetSpec
from clsp.runtime.errors import ConfigError
from clsp.runtime.ledger import read_ledger

RANK = {"verified": 2, "not run": 1, "invalid (accepted)": 0, "invalid": 0}


def _files(tree: Tree) -> list[Path]:
    every = [*tree.results.rglob("*"), *tree.reports.rglob("*")]
    return sorted(path for path in every if path.is_file())


def _sample(tree: Tree) -> list[Path]:
    """One file of every kind of place: stage folder and name, whatever the run."""
    seen: dict[tuple[str, str], Path] = {}
    for path in _files(tree):
        root = tree.results if path.is_relative_to(tree.results) else tree.reports
        parts = path.relative_to(root).parts
        seen.setdefault((root.parent.name, parts[0], parts[-1]), path)
    return list(seen.values())


def test_no_file_can_be_taken_away_to_a_better_verdict(tree: Tree, tmp_path: Path) -> None:
    """From a clean tree, every kind of file in turn: the verdict never stays as good unnoticed."""
    silent = tree.results / "provenance"  # Snakemake's memory, and what was checked beforehand
    for path in _sample(tree):
        content, times = path.read_bytes(), path.stat()
        path.unlink()
        code, record = audit(tree, tmp_path / "audit.json")
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        passed = path.is_relative_to(silent) and path.name != "checked.json"
        assert (code == 0) == passed, f"{path}: {record['verdict']}"


@pytest.mark.parametrize("name", ["metric_file_edited", "ledger_line_edited", "spec_stale"])
def test_a_missing_record_never_turns_a_finding_into_a_pass(
    name: str, tree: Tree, tmp_path: Path
) -> None:
    FAULTS[name].inject(tree)
    for path in [p for p in _sample(tree) if p.name.endswith(("manifest.json", "ledger.jsonl"))]:
        content = path.read_bytes()
        path.unlink()
        code, record = audit(tree, tmp_path / "audit.json")
        path.write_bytes(content)
        assert code in (1, 3) and record["verdict"] != "verified", path


def test_accepting_a_finding_is_recorded_and_no_pass(tree: Tree, tmp_path: Path) -> None:
    FAULTS["file_added"].inject(tree)
    flags = ("--accept", "a03", "--reason", "a note of mine")
    code, record = audit(tree, tmp_path / "audit.json", flags)
    assert (code, record["verdict"]) == (1, "invalid (accepted)")
    assert record["accepted"] == {"A03": "a note of mine"}
    assert ids(record) == {"A03"}


def test_accepting_one_finding_leaves_the_others(tree: Tree, tmp_path: Path) -> None:
    for name in ("file_added", "ledger_line_edited"):
        FAULTS[name].inject(tree)
    flags = ("--accept", "A03", "--reason", "a note of mine")
    code, record = audit(tree, tmp_path / "audit.json", flags)
    assert (code, record["verdict"]) == (1, "invalid")


def test_accepting_what_was_not_found_changes_nothing(tree: Tree, tmp_path: Path) -> None:
    flags = ("--accept", "A02", "--reason", "just in case")
    code, record = audit(tree, tmp_path / "audit.json", flags)
    assert (code, record["verdict"], record["accepted"]) == (0, "verified", {"A02": "just in case"})


@pytest.mark.parametrize(
    "flags",
    [
        ("--accept", "A03"),
        ("--accept", "A03", "--reason", " "),
        ("--accept", "A99", "--reason", "because"),
        ("--nonce", "xyz"),
        ("--samples", "0"),
    ],
    ids=" ".join,
)
def test_flags_that_make_no_sense_are_refused(flags, tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        audit(tree, tmp_path / "audit.json", flags)


def test_every_level_passes_a_clean_tree_and_says_so(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clsp.audit.run.Subprocess", lambda: StandIn(tree))
    done, replayed = [], ("--nonce", "00", "--replay-runs", "99")
    for level in LEVELS:
        code, record = audit(tree, tmp_path / "audit.json", ("--level", level, *replayed))
        reached = {cell["level"] for cell in record["cells"]}
        assert (code, record["level"]) == (0, level)
        assert "L3" in reached if level in ("L3", "L4") else reached == {level}
        done.append(sum(check["done"] for check in record["checks"]))
    assert done == sorted(done) and done[0] < done[2] < done[3] == len(record["checks"])


def test_a_cell_reaches_l3_only_where_all_its_runs_were_repeated(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clsp.audit.run.Subprocess", lambda: StandIn(tree))
    flags = ("--level", "L3", "--nonce", "00", "--replay-runs", "1")
    _, record = audit(tree, tmp_path / "audit.json", flags)
    assert {cell["level"] for cell in record["cells"]} == {"L2"}
    kinds = [name.split(" ")[0] == "dataset" for name in record["replayed"]]
    assert kinds.count(False) == 2 and any(kinds)  # one run, one bank, and every dataset


def test_equal_inputs_give_equal_records_and_a_nonce_is_drawn_for_replays(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "audit.json"
    texts = {(audit(tree, out), out.read_text())[1] for _ in range(2)}
    assert len(texts) == 1
    monkeypatch.setattr("clsp.audit.run.Subprocess", lambda: StandIn(tree))
    nonces = {audit(tree, out, ("--level", "L3"))[1]["nonce"] for _ in range(2)}
    assert len(nonces) == 2


def test_the_head_of_the_ledger_is_told_and_finds_a_cut_end(tree: Tree, tmp_path: Path) -> None:
    path, out = tree.results / "ledger.jsonl", tmp_path / "audit.json"
    noted = audit(tree, out)[1]["ledger"]["head"]
    assert noted == read_ledger(path).head
    assert audit(tree, out, ("--anchor", noted))[0] == 0
    earlier = read_ledger(path).hashes[3]
    assert audit(tree, out, ("--anchor", earlier))[0] == 0
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))  # the end of the report's attempt
    assert audit(tree, out)[0] == 0  # nobody can see it
    code, record = audit(tree, out, ("--anchor", noted))
    assert (code, ids(record)) == (1, {"A04"})


def test_limits_are_in_every_record(tree: Tree, tmp_path: Path, capsys) -> None:
    _, record = audit(tree, tmp_path / "audit.json")
    assert "Unsigned records prove consistency, not authorship" in record["limits"]
    assert record["limits"] in capsys.readouterr().out


def test_a_tree_that_cannot_be_written_is_audited(tree: Tree, tmp_path: Path) -> None:
    """As on a read-only mount. To whoever may write everywhere, that nothing is written is shown."""
    before = state(tree.results.parents[1])
    with read_only(tree.results, tree.reports):
        code, _ = audit(tree, tmp_path / "elsewhere" / "audit.json")
    (tmp_path / "elsewhere" / "audit.json").unlink()
    assert code == 0 and state(tree.results.parents[1]) == before


@pytest.mark.parametrize("locale", ["C", "tr_TR.UTF-8", "de_DE.UTF-8"])
def test_locale_and_hash_seed_change_no_byte(locale: str, tree: Tree, tmp_path: Path) -> None:
    from results_tree import tiny_params

    from clsp.runtime.canonical import canonical_json

    texts = []
    for number, seed in enumerate("01" if locale == "C" else "1"):
        out = tmp_path / f"{locale}-{number}.json"
        command = [sys.executable, "-m", "clsp", "audit", "--out", str(out), "--without-mlflow"]
        command += ["--results", str(tree.results), "--reports", str(tree.reports)]
        command += ["--spec", canonical_json(tiny_params().canonical())]
        given = {**os.environ, "LC_ALL": locale, "PYTHONHASHSEED": seed}
        given["PYTHONPATH"] = str(Path(__file__).parents[2])
        done = subprocess.run(command, capture_output=True, text=True, env=given)
        assert done.returncode == 0, done.stderr
        texts.append(out.read_text())
    here = tmp_path / "here.json"
    bare = Tree(tree.results, tree.reports, None)
    audit(bare, here, ("--without-mlflow",))
    assert {*texts} == {here.read_text()}


def _dataset(kind: str, per_class: dict[str, int], classes: int):
    import numpy as np

    labels = {s: np.repeat(np.arange(classes), n) for s, n in per_class.items()}
    ends = np.cumsum([0, *(len(x) for x in labels.values())]).tolist()
    card = {
        "classes": [str(c) for c in range(classes)],
        "splits": {s: [a, b] for s, a, b in zip(labels, ends, ends[1:], strict=False)},
    }
    source = {} if kind == "fashion_mnist" else {"source": "download"}
    spec = DatasetSpec.model_validate({"kind": kind, "size": 32, **source})
    return spec, np.concatenate(list(labels.values())), card


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "fashion_mnist"])
def test_published_classes_are_known(kind: str) -> None:
    (counts,) = dataset_info(kind).counts.values()
    each = {"train": BALANCED[kind]["train"], "val": 0, "test": BALANCED[kind]["test"]}
    spec, labels, card = _dataset(kind, each, counts.classes)
    assert published_counts(spec) == counts
    assert list(_problems(spec, labels, card)) == []
    swapped = labels.copy()
    swapped[0] = 1  # one image of class 0 is said to show class 1
    assert [p[0] for p in _problems(spec, swapped, card)] == [
        f"{each['train']} images of every class in train"
    ]
    fewer = {**card, "splits": {**card["splits"], "test": [len(labels) - 5, len(labels)]}}
    assert "images in test" in next(_problems(spec, labels, fewer))[0]
    assert json.dumps(card)
