"""Verdicts: the order of the rules, the seeds that count, and what is written about them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_tree import PARAMS, REPO, TreeBuilder, tiny_params

from clsp.config.claims import read_claims
from clsp.config.load import load_params, read_yaml
from clsp.config.schema import Params
from clsp.job import _expectations
from clsp.report.claims import judge_claims
from clsp.report.collect import build_frame, frame_csv
from clsp.report.contest import Contest
from clsp.report.records import Records
from clsp.report.table import read_frame
from clsp.report.verdicts import (
    build_statement,
    claims_csv,
    claims_latex,
    claims_lock,
    claims_markdown,
)
from clsp.runtime.canonical import sha256_file, sha256_text

FILE = REPO / "reports/spec/claims.yaml"
MAIN = PARAMS["runs"]["main"]


def params_of(seeds: list[int] = [0, 1, 2, 3, 4], **changes: Any) -> Params:  # noqa: B006
    runs = {"main": {**MAIN, "seed": seeds}}
    return tiny_params(**{"demonstration": False, "runs": runs, **changes})


def frame_of(params: Params, values: dict[tuple[str, int], float | None]) -> pd.DataFrame:
    """The frame of a profile with linear numbers by positives and seed; None: missing."""
    frame = read_frame(frame_csv(build_frame(params, Path("/nowhere"))))
    for index, row in frame.iterrows():
        value = values.get((row["positives"], int(row["seed"])))
        if row["protocol"] == "linear" and value is not None:
            frame.loc[index, ["value", "status", "metric", "total"]] = [
                value,
                "done",
                "top1",
                "450",
            ]
    return frame


def gains(*points: float | None) -> dict[tuple[str, int], float | None]:
    """Linear numbers in which the synthetic positive gains so many points, seed by seed."""
    base = {("none", seed): 90.0 + 0.3 * seed for seed in range(len(points))}
    better = {
        ("synthetic", seed): None if gain is None else 90.0 + 0.3 * seed + gain
        for seed, gain in enumerate(points)
    }
    return {**base, **better}


def verdict_of(
    params: Params, frame: pd.DataFrame, name: str = "C4", locked: str = ""
) -> dict[str, Any]:
    found = judge_claims(Contest(params, frame), read_claims(FILE), lambda runs: locked)
    (record,) = [record for record in found if record["id"] == name]
    return record


@pytest.mark.parametrize(
    ("points", "verdict"),
    [
        ((1.0, 1.2, 0.9, 1.1, 1.0), "reproduced"),
        ((-3.0, -3.2, -2.9, -3.1, -3.0), "not reproduced"),
        ((0.4, -0.3, 0.5, -0.2, 0.1), "within tolerance"),
        ((-4.0, 1.0, -5.0, 2.0, -1.0), "not reproduced"),  # undecided, but farther than tau below
        ((0.2, 0.2, 0.2, 0.2, 0.2), "reproduced"),
        ((0.0, 0.0, 0.0, 0.0, 0.0), "within tolerance"),  # "more than", and no difference at all
    ],
)
def test_statistics_decide(points: tuple[float, ...], verdict: str) -> None:
    params = params_of()
    found = verdict_of(params, frame_of(params, gains(*points)))
    assert (found["verdict"], found["indicative"], found["n"]) == (verdict, verdict, 5)
    assert found["difference"] == pytest.approx(sum(points) / 5)


def test_the_bound_is_the_paired_one() -> None:
    params = params_of()
    found = verdict_of(params, frame_of(params, gains(1.0, 1.2, 0.9, 1.1, 1.0)))
    spread = pd.Series([1.0, 1.2, 0.9, 1.1, 1.0]).std() / 5**0.5
    assert found["lower"] == pytest.approx(1.04 - 2.131847 * spread, abs=1e-6)  # t(0.95, 4)
    assert found["high"] == pytest.approx(1.04 + 2.776445 * spread, abs=1e-6)  # t(0.975, 4)
    assert [round(p, 2) for p in found["power"]] == [0.58, 0.97, 1.0]
    assert found["p_holm"] >= found["p"] and found["direction"] == "better"


def test_a_reduced_profile_never_gets_a_verdict_but_shows_its_numbers() -> None:
    params = params_of(demonstration=True)
    found = verdict_of(params, frame_of(params, gains(1.0, 1.2, 0.9, 1.1, 1.0)))
    assert (found["verdict"], found["because"]) == ("not run", "reduced profile")
    assert (found["indicative"], found["n"]) == ("reproduced", 5)


def test_two_seeds_are_too_few() -> None:
    params = params_of([0, 1])
    found = verdict_of(params, frame_of(params, gains(1.0, 1.1)))
    assert (found["verdict"], found["because"]) == ("not run", "n = 2")


def test_a_missing_run_is_not_skipped() -> None:
    params = params_of()
    found = verdict_of(params, frame_of(params, gains(1.0, 1.1, None, 0.9, 1.0)))
    assert (found["verdict"], found["because"]) == ("not run", "1 of 5 seeds are missing")


def test_the_first_declared_seeds_count_and_no_others() -> None:
    params = params_of([0, 1, 2, 7, 8])  # 7 and 8 were never declared, however good they are
    values = gains(1.0, 1.2, 0.9) | {("none", 7): 90.0, ("synthetic", 7): 99.0}
    found = verdict_of(params, frame_of(params, values))
    assert (found["seeds"], found["verdict"]) == ([0, 1, 2], "reproduced")
    params = params_of([0, 2, 3, 4])  # one left out
    found = verdict_of(params, frame_of(params, gains(1, 1, 1, 1, 1)))
    assert (found["verdict"], found["n"]) == ("not run", 0)
    assert found["because"] == "seed 1 is declared before others and not run"


def test_another_claims_file_makes_the_verdict_invalid() -> None:
    params = params_of(demonstration=True)
    found = verdict_of(params, frame_of(params, gains(1, 1, 1, 1, 1)), locked="another file")
    assert (found["verdict"], found["because"]) == ("invalid", "another file")


def test_a_claim_that_no_run_is_about_is_not_run() -> None:
    params = params_of()
    found = verdict_of(params, frame_of(params, gains(1, 1, 1, 1, 1)), "C1")
    assert (found["verdict"], found["because"]) == ("not run", "no run of this profile is about it")


@pytest.fixture(scope="module")
def comparison() -> tuple[Params, pd.DataFrame]:
    """The paper's comparison with made-up numbers: CLSP far ahead on CIFAR-10, behind on CIFAR-100."""
    path = REPO / "configs/comparison_cifar.yaml"
    params = load_params(read_yaml(path), str(path))
    frame = read_frame(frame_csv(build_frame(params, Path("/nowhere"))))
    clsp = frame["label"].str.startswith("CLSP-")
    on10 = frame["dataset"] == "cifar10"
    seed = pd.to_numeric(frame["seed"], errors="coerce").fillna(0)
    jitter = frame["method"].str.len() % 5 * 0.01 * (seed % 3)
    frame["value"] = 90 + jitter + clsp * (3.0 * on10 - 1.0 * ~on10)
    frame["status"], frame["metric"], frame["total"] = "done", "top1", "10000"
    return params, frame


def test_the_paper_s_comparison_evaluates_its_claims(comparison: Any) -> None:
    params, frame = comparison
    found = judge_claims(Contest(params, frame), read_claims(FILE), lambda runs: "")
    named = {}
    for record in found:
        named.setdefault(record["id"], []).append(record)
    for name in ("C1", "C2"):
        assert [r["left"] for r in named[name]] == ["CLSP-SimCLR", "CLSP-MoCo v2+"]
        assert {r["verdict"] for r in named[name]} == {"reproduced"}
    assert {r["verdict"] for r in named["C1b"] + named["C2b"]} == {"not reproduced"}
    assert {(r["dataset"], r["verdict"]) for r in named["C4"] + named["C5"]} == {
        ("cifar10", "reproduced"),
        ("cifar100", "not reproduced"),
    }
    assert {(r["dataset"], r["won"], r["verdict"]) for r in named["C3"]} == {
        ("cifar10", 8, "reproduced"),
        ("cifar100", 0, "not reproduced"),
    }
    (several,) = named["C2m"]  # 1 of the 4 datasets is decided for, 1 against, 2 are elsewhere
    assert (several["won"], several["verdict"]) == (1, "not run")
    assert several["because"] == "decided on 2 of 4 datasets"
    first = named["C1"][0]["published"][0]
    assert (first["value"], first["protocol_mismatch"]) == (2.57, True)
    assert first["ours_minus_published_right"] == pytest.approx(93 - 91.88, abs=0.1)
    assert not any("[labels]" in str(r.get("right")) for r in found)


def test_what_is_written_about_verdicts(comparison: Any) -> None:
    params, frame = comparison
    found = judge_claims(Contest(params, frame), read_claims(FILE), lambda runs: "")
    document = {"mark": "", "claims_sha256": "0" * 64, "verdicts": found}
    result = build_statement(document, "{}")["predicate"]
    assert result["result"] == "FAILED"  # an honest "not reproduced" is a failed test
    assert "C1.cifar10.1" in result["passedTests"]
    assert any(test.startswith("C2m") for test in result["warnedTests"])
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    text = claims_markdown(document)
    assert "+3.0" in text and "reproduced" in text and r"\[mismatch\]" in text
    assert len(claims_csv(document).splitlines()) == len(found) + 1
    latex = claims_latex(document)
    assert latex.count(r"\\" + "\n") == len(found) + 1 and "|" not in latex


def test_a_run_records_the_claims_file_that_is_there_when_it_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _expectations("pretrain-encoder") == {"claims_sha256": None}
    path = tmp_path / "reports/spec/claims.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("one")
    assert _expectations("pretrain-encoder") == {"claims_sha256": sha256_text("one")}
    assert _expectations("probe-encoder") == {}


def test_a_lock_names_the_first_strange_run(tmp_path: Path) -> None:
    builder = TreeBuilder(tmp_path, tiny_params())
    builder.everything()
    runs = ["digits.tiny.simclr.none.s0", "digits.tiny.simclr.none.s1"]
    lock = claims_lock(builder.params, Records(builder.results), sha256_file(FILE))
    assert lock(runs) == ""
    lock = claims_lock(builder.params, Records(builder.results), "0" * 64)
    assert lock(runs).startswith(f"2 of 2 runs, such as {runs[0]}, recorded another claims file")
