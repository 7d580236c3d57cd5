"""Clean trees of many makers pass: no finding above a badge, and the same record every time.

False alarms count as much as misses. What differs here is what may differ between honest machines:
seeds and their order, shards, devices, versions, clocks, interruptions, tracking, paths.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auditing import audit, ids, read_only
from copying import mirror_into
from faults import Tree
from results_tree import (
    ABLATIONS,
    ALONG,
    IMPORTED,
    JUDGED,
    LABELLED,
    MEASURED,
    PARAMS,
    TAUGHT,
    TreeBuilder,
    tiny_params,
)
from tree_results import stream

from clsp.config.load import load_params
from clsp.runtime.canonical import canonical_json, sha256_text
from clsp.runtime.ledger import Attempt
from clsp.runtime.manifest import Artefact

MAIN = PARAMS["runs"]["main"]
GPU = {"name": "NVIDIA H200", "memory_bytes": 150 << 30, "driver": "550", "cuda": "12.8"}
MACHINES = (
    {"cpu": "AMD EPYC", "python": "3.11.9", "threads": 8},
    {"cpu": "Intel Xeon", "python": "3.12.1", "gpu": GPU, "device": GPU["name"]},
    {"cpu": "Apple M3", "versions": {"torch": "2.12.0", "numpy": "1.26"}, "lock_sha256": "1" * 64},
)
PLAIN = {"figures": ["curves"]}


def _seeds(*seeds: int) -> dict[str, Any]:
    return {"main": {**MAIN, "seed": list(seeds)}}


class Elsewhere(TreeBuilder):
    """A tree whose jobs ran on several machines, some of them not at the first attempt."""

    machines: tuple[dict[str, Any], ...] = ({},)
    troubled = False
    ties = False

    def write(self, job: Any, folder: str, *rest: Any, **more: Any) -> Artefact:
        """Write one artefact as one of the machines, after what went wrong before."""
        name = rest[2] if len(rest) > 2 else more.get("manifest", "manifest.json")
        if self.troubled:
            self._attempts(self.results / folder / name, job)
        place = int(sha256_text(folder)[:4], 16) % len(self.machines)
        recorded = {**self.machines[place], **more.pop("recorded", {})}
        return super().write(job, folder, *rest, recorded=recorded, **more)

    @staticmethod
    def _attempts(manifest: Path, job: Any) -> None:
        """A failure, a signal and a kill; the next attempt notes the last of them."""
        about = {"stage": job.stage, "spec_sha256": "0" * 64, "code": job.code}
        for number, status in enumerate(("failed", "preempted", "killed")):
            attempt = Attempt(manifest, sha256_text(f"{manifest}{number}")[:32], about)
            if status != "killed":
                attempt.end(status, reason=f"{status} on the way", seconds=3.0)

    def _logits(self, task: str, *parts: Any) -> np.ndarray:
        """With ties among them, and the last class never the only best, if asked."""
        logits = super()._logits(task, *parts)
        if not self.ties or self.metric(task) == "map11":
            return logits
        logits = np.round(logits).astype(np.float32)
        logits[:, -1] = logits.min(axis=1)  # of few shots the class is then never predicted
        return logits + np.float32(0.001) * stream("own", *parts).random(dtype=np.float32)


@dataclass(frozen=True)
class Case:
    """One maker.

    Attributes:
        changes: What is asked for beyond PARAMS.
        maker: Attributes of the builder.
        base: Name of the folder it lies in.
        mirrored: Whether an MLflow store goes with it.
        then: What happens to the finished tree.
        notes: Checks of which a badge is expected.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    maker: dict[str, Any] = field(default_factory=dict)
    base: str = "base"
    mirrored: bool = False
    then: Callable[[Path], None] = lambda _: None
    notes: frozenset[str] = frozenset()


def _other_shards(base: Path) -> None:
    """Left-overs of an earlier split, made by other code."""
    folder = base / "results/tiny/banks/digits.mix/shards"
    statement = json.loads((folder / "1-of-3.manifest.json").read_text())
    (folder / "1-of-9.npy").write_bytes((folder / "1-of-3.npy").read_bytes())
    statement["subject"][0]["name"] = "1-of-9.npy"
    statement["predicate"]["internalParameters"]["code"] = "0" * 16
    (folder / "1-of-9.manifest.json").write_text(canonical_json(statement))


def _other_seed(base: Path) -> None:
    """A run that params.yaml no longer asks for, and one that was begun and never ended."""
    runs = base / "results/tiny/runs"
    shutil.copytree(runs / "digits.tiny.simclr.none.s0", runs / "digits.tiny.simclr.none.s8")
    begun = runs / "digits.tiny.simclr.none.s9"
    begun.mkdir()
    (begun / ".manifest.partial").write_text("{")
    (begun / "history.jsonl").write_text('{"step":0}\n')


def _another_place(base: Path) -> None:
    """Copied by hand: other times, other rights, another order on the disk."""
    for path in sorted((base / "results").rglob("*"), reverse=True):
        os.utime(path, (1e9 + len(path.name), 1e9))
        path.chmod(0o700 if path.is_dir() else 0o600)
    shutil.copytree(base / "results", base / "again")
    shutil.rmtree(base / "results")
    (base / "again").rename(base / "results")


def _clocks(base: Path) -> None:
    """Offsets from UTC, and fields that a later version may add: nothing is read from them."""
    for path in (base / "results/tiny").rglob("manifest.json"):
        text = path.read_text()
        text = text.replace("2024-01-01T00:00:00+00:00", "2024-01-01T05:30:00+05:30")
        text = text.replace('"runDetails":{', '"annotation":["new"],"runDetails":{"host":7,')
        path.write_text(text)


CASES = {
    "one seed, one shard": Case({**PLAIN, "runs": _seeds(7)}, {"shards": 1}),
    "seeds out of order, seven shards, three machines": Case(
        {**PLAIN, "runs": _seeds(11, 3, 4, 0)},
        {"shards": 7, "machines": MACHINES},
        notes=frozenset({"A07", "A32"}),
    ),
    "three shards and left-overs": Case(PLAIN, {"shards": 3}, then=_other_shards),
    "every job failed, was stopped and killed before": Case(PLAIN, {"troubled": True}),
    "fast execution, large seed": Case({**PLAIN, "execution": "fast", "runs": _seeds(2**31, 5)}),
    "ties, and a class that nobody predicts": Case(JUDGED, {"ties": True}),
    "imported encoders": Case({**IMPORTED, **PLAIN}),
    "ablations": Case(
        {
            "runs": {
                "main": MAIN,
                "alignment": {**ALONG, "positives": ["synthetic"], "alignment_weight": [0, 0.5]},
            },
            "tables": [*PARAMS["tables"], ABLATIONS[0]],
            "figures": [ABLATIONS[0]],
        }
    ),
    "labels and two recipes": Case({**LABELLED, **PLAIN}),
    "measured banks": Case({**MEASURED, "figures": ["quality_interpolation"]}),
    "moving average, tracked": Case({**TAUGHT, **PLAIN}, mirrored=True),
    "odd path, left-over runs": Case(
        PLAIN, base="Ünï cödé $(x) & co", then=_other_seed, notes=frozenset({"A03", "A05"})
    ),
    "copied by hand": Case({**PLAIN, "profile": "tiny"}, then=_another_place),
}


def _build(case: Case, folder: Path) -> Tree:
    base = folder / case.base
    base.mkdir()
    params = load_params({**PARAMS, **case.changes}, "tiny")
    maker = type("Maker", (Elsewhere,), case.maker)(base, params)
    if case.mirrored:
        maker.mlflow = mirror_into(folder / "another place.db")
    maker.everything()
    case.then(base)
    store = folder / "another place.db"
    return Tree(maker.results, maker.reports, store if case.mirrored else None)


@pytest.mark.parametrize("name", CASES)
def test_an_honest_tree_passes_and_gives_the_same_record_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    tree, out = _build(case, tmp_path), tmp_path / "audit.json"
    code, record = audit(tree, out, **case.changes)
    told = [f for f in record["findings"] if f["severity"] != "badge"]
    assert (code, told, record["verdict"]) == (0, [], "verified")
    assert case.notes <= {f["id"] for f in record["findings"]}
    first = out.read_bytes()
    monkeypatch.chdir(tmp_path)
    assert audit(tree, out, **case.changes)[0] == 0
    assert out.read_bytes() == first


def test_fields_of_a_later_version_and_other_offsets_are_left_alone(
    tree: Tree, tmp_path: Path
) -> None:
    """Whoever only adds what nobody reads changes no number; the ledger's digests still fit."""
    from faults_red_tools import settle

    _clocks(tree.results.parents[1])
    settle(tree)
    code, record = audit(tree, tmp_path / "audit.json")
    assert (code, ids(record)) == (0, set())


@pytest.mark.parametrize("locale", ["C", "tr_TR.UTF-8"])
def test_the_command_itself_on_a_folder_that_cannot_be_written(
    locale: str, tree: Tree, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "with spaces"
    elsewhere.mkdir()
    records = []
    for zone in ("UTC", "Asia/Kathmandu"):
        out = elsewhere / f"{len(records)}.json"
        command = [sys.executable, "-m", "clsp", "audit", "--out", str(out)]
        command += ["--results", str(tree.results), "--reports", str(tree.reports)]
        command += ["--spec", canonical_json(tiny_params().canonical())]
        command += ["--mlflow", f"sqlite:///{tree.store}"]
        given = {**os.environ, "LC_ALL": locale, "TZ": zone, "PYTHONHASHSEED": str(len(records))}
        given["PYTHONPATH"] = str(Path(__file__).parents[2])
        with read_only(tree.results, tree.reports):
            done = subprocess.run(
                command, capture_output=True, text=True, env=given, cwd=elsewhere, check=False
            )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        records.append(out.read_bytes())
    assert records[0] == records[1]
