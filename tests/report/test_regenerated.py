"""Tables and verdicts follow from manifests alone: the same bytes in any surroundings, no torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from results_tree import JUDGED, REPO, TreeBuilder, tiny_params

from clsp.config.plan import report_job, report_params
from clsp.runtime.canonical import canonical_json

TABLES = ("main", "transfer", "fine_tune")
FORBIDDEN = ("torch", "torchvision", "diffusers", "mlflow", "sklearn", "matplotlib", "seaborn")
PROGRAM = """
import json, os, sys
forbidden, backwards, jobs = json.loads(sys.argv[1])

if backwards:
    listed = os.scandir
    class Backwards(list):
        __enter__ = lambda self: self
        __exit__ = lambda self, *_: None
    os.scandir = lambda *where: Backwards(reversed(sorted(listed(*where), key=lambda e: e.name)))
from clsp.__main__ import main
for job in jobs:
    code = main(job)
    assert not code, (code, job)
    assert not set(forbidden) & set(sys.modules), (job, set(forbidden) & set(sys.modules))
"""
SURROUNDINGS = {
    "plain": {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "0"},
    "other": {"LC_ALL": "C.UTF-8", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7"},
    "backwards": {"LANG": "tr_TR.UTF-8", "TZ": "America/St_Johns", "PYTHONHASHSEED": "1"},
}


@pytest.fixture(scope="module")
def science(tmp_path_factory: pytest.TempPathFactory) -> TreeBuilder:
    builder = TreeBuilder(tmp_path_factory.mktemp("science"), tiny_params(**JUDGED))
    builder.science()
    for path in builder.results.rglob("*"):  # numbers, images and weights, but not what is told
        if path.is_file() and not path.name.endswith(("manifest.json", ".jsonl")):
            path.unlink()
    return builder


def commands(builder: TreeBuilder, out: Path) -> list[list[str]]:
    """The jobs of `snakemake tables`, as the rules run them."""
    spec = canonical_json(report_params(builder.params).canonical())

    def command(stage: str, name: str | None, manifest: str, **given: object) -> list[str]:
        code = report_job(builder.params, stage, name).code
        found = [stage, "--spec", spec, "--code", code, "--manifest", str(out / manifest)]
        for flag, value in given.items():
            found += [f"--{flag}", str(value)]
        return found

    root, frame = builder.results, out / "frame.manifest.json"
    files = {"frame": out / "frame.csv", "metrics": out / "metrics.json"}
    jobs = [command("collect-results", None, "frame.manifest.json", root=root, **files)]
    claims = {f: out / f"claims.{f}" for f in ("csv", "md", "tex")}
    claims |= {"verdicts": out / "verdicts.json", "statement": out / "verdicts.intoto.json"}
    held = REPO / "reports/spec"
    given = {"root": root, "frame": frame, "claims": held / "claims.yaml"}
    jobs.append(command("judge-claims", None, "claims.manifest.json", **given, **claims))
    for name in TABLES:
        made = {f: out / f"{name}.{f}" for f in ("csv", "md", "tex")}
        given = {"table": name, "frame": frame, "published": held / "published.yaml"}
        jobs.append(command("render-table", name, f"{name}.manifest.json", **given, **made))
    return jobs


def regenerate(builder: TreeBuilder, out: Path, name: str) -> dict[str, bytes]:
    """Everything but manifests, which say when they were made."""
    out.mkdir()
    given = json.dumps([FORBIDDEN, name == "backwards", commands(builder, out)])
    kept = {k: v for k, v in os.environ.items() if k not in ("LC_ALL", "LANG")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, given],
        capture_output=True,
        text=True,
        cwd=out,
        env={**kept, "PYTHONPATH": str(REPO), **SURROUNDINGS[name]},
    )
    assert done.returncode == 0, done.stderr
    made = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    return {name: text for name, text in made.items() if not name.endswith("manifest.json")}


def test_tables_are_the_same_bytes_everywhere_without_torch_or_predictions(
    science: TreeBuilder, tmp_path: Path
) -> None:
    texts = [regenerate(science, tmp_path / name, name) for name in SURROUNDINGS]
    assert {f"{name}.{e}" for name in (*TABLES, "claims") for e in ("csv", "md", "tex")} <= {
        *texts[0]
    }
    assert texts[0] == texts[1] == texts[2]
    assert b"missing" not in texts[0]["frame.csv"]
