"""Duplicates are counted twice, by two codes, and told; archives are those that are known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from auditing import audit, ids
from faults import Tree
from PIL import Image
from results_tree import JUDGED, PARAMS, tiny_params

from clsp.audit.checks import a10_bank, a42_archives
from clsp.audit.items import Items
from clsp.audit.leakage import Dataset, count_bank, count_dataset, open_dataset, pairs_wanted
from clsp.config.catalog import Archive
from clsp.config.grid import expand_runs
from clsp.config.plan import prepare_job
from clsp.config.schema import Params
from clsp.data.duplicates import Images, compare_what, match
from clsp.data.prepare import prepare_dataset
from clsp.data.prepared import open_prepared
from clsp.job import Call, run
from clsp.runtime.canonical import canonical_json
from clsp.runtime.manifest import Artefact


def test_duplicates_are_a_note_and_spoil_no_number(judged_tree: Tree, tmp_path: Path) -> None:
    code, record = audit(judged_tree, tmp_path / "audit.json", **JUDGED)
    assert (code, ids(record), record["verdict"]) == (0, set(), "verified")
    assert {cell["verdict"] for cell in record["cells"]} == {"verified"}
    assert {"Random encoder", "Raw pixels"} <= {cell["label"] for cell in record["cells"]}
    (note,) = [finding for finding in record["findings"] if finding["id"] == "A09"]
    assert (note["severity"], note["found"], note["numbers"]) == ("badge", "1 of 9", [])
    assert note["subject"] == "digits/train and multi-mini/test"


def _section(tree: Tree) -> str:
    page = (tree.reports / "report.html").read_text()
    return page.partition('<section aria-labelledby="leakage">')[2].partition("</section>")[0]


def test_the_page_names_duplicates(judged_tree: Tree) -> None:
    section = _section(judged_tree)
    assert "train/2.png = test/14.png" in section
    assert '<td class="n">1</td><td class="n">9</td>' in section
    assert "<li>digits.mix and digits/test, target-mini/test, multi-mini/test</li>" in section
    assert "evaluations/duplicates/manifest.json" in section


def test_the_page_says_that_there_are_none(tree: Tree) -> None:
    section = _section(tree)
    assert "No comparison found any:" in section and "<table>" not in section


def test_without_counts_the_page_says_so(tree: Tree) -> None:
    from results_tree import REPO

    from clsp.report.page import Parts, render_page
    from clsp.runtime.manifest import read_manifest

    for path in (tree.results / "evaluations/duplicates").iterdir():
        path.unlink()
    frame, claims = (
        read_manifest(tree.reports / f"{n}.manifest.json") for n in ("frame", "claims")
    )
    spec, template = REPO / "reports/spec", REPO / "clsp/report/report.html.jinja"
    read = {n: spec / n for n in ("official_curves.json", "explanations.yaml")}
    parts = Parts(frame, claims, [], [], read, spec / "deviations.yaml", template)
    page = render_page(tiny_params(), tree.results, parts)
    assert "Not there: duplicates have not been counted with these settings." in page


def test_missing_counts_are_incomplete_and_spoil_no_number(tree: Tree, tmp_path: Path) -> None:
    for path in (tree.results / "evaluations/duplicates").iterdir():
        path.unlink()
    _, record = audit(tree, tmp_path / "audit.json")
    (missing,) = [f for f in record["findings"] if f["id"] == "A01"]
    assert (missing["subject"], missing["severity"]) == (
        "count-duplicates duplicates",
        "incomplete",
    )
    assert {cell["verdict"] for cell in record["cells"]} == {"verified"}


@pytest.mark.parametrize("changes", [{}, JUDGED])
def test_both_codes_compare_the_same_sets(changes: dict) -> None:
    params = tiny_params(**changes)
    found = [(c.kind, c.trained_on, c.tested) for c in compare_what(params)]
    assert set(found) == pairs_wanted(params, expand_runs(params)).keys()
    assert len(found) == len(set(found))


def _drawn(seed: int, size: int, digits: int) -> tuple[list[str], list[str]]:
    """Digests at own resolution and as stored, of so few values that many are equal."""
    draw = np.random.default_rng(seed)
    pair = draw.integers(0, 40, (2, 25))
    source, stored = ([f"{value:0{digits}x}" for value in each.tolist()] for each in pair)
    return source, [f"{size}{value[1:]}" for value in stored]


@pytest.mark.parametrize("sizes", [(4, 4), (4, 8)])
@pytest.mark.parametrize("seed", range(3))
def test_both_codes_count_alike(seed: int, sizes: tuple[int, int]) -> None:
    sets, listed = [], []
    for number, size in enumerate(sizes):
        source, stored = _drawn(2 * seed + number, 4, 32)
        items = Items(["train"] * 25, [""] * 25, [""] * 25, source, stored)
        sets.append(Dataset(items, size, {"train": [0, 25], "test": [0, 25]}))
        listed.append(Images([""] * 25, list(range(25)), source, stored, size))
    count = count_dataset(sets[0], ("train",), sets[1])
    assert count == len(list(match(*listed))) > 0
    digests = np.array([digest[:16] for digest in sets[0].items.source], "S16")
    short = [digest.decode() for digest in digests.tolist()]
    bank = Images([""] * 25, list(range(25)), short, short, sizes[0])
    assert count_bank(digests, sizes[0], sets[1]) == len(list(match(bank, listed[1])))


def _archive(**changes: object) -> Archive:
    known = {"name": "a.tar", "urls": ("https://h.org/a.tar",), "hosts": ("h.org",), "size": 9}
    members = ({"pattern": "a/*.jpg", "most": 3},)
    return Archive.model_validate({**known, "checked": "by nobody", "members": members, **changes})


RECORD = {
    "name": "a.tar",
    "url": "https://files.h.org/a.tar",
    "size": 9,
    "sha256": "a" * 64,
    "md5": "b" * 32,
    "confirmed": False,
    "contents": [{"members": {"a/*.jpg": 2}}],
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"url": "local"}, None),
        ({"sha256": "c" * 64}, f"sha256 {'a' * 64} of a.tar"),
        ({"sha256": None}, f"sha256 {'a' * 64} of a.tar"),
        ({"md5": None}, "md5 recorded of a.tar"),
        ({"size": 8}, "size 9 of a.tar"),
        ({"confirmed": True}, "confirmed False of a.tar"),
        ({"url": "http://h.org/a.tar"}, "https at h.org, or local"),
        ({"url": "https://h.org.evil.net/a.tar"}, "https at h.org, or local"),
        ({"contents": [{"members": {"a/*.jpg": 4}}]}, "1 to 3 of a/*.jpg"),
        ({"contents": [{"members": {"a/*.jpg": 0}}]}, "1 to 3 of a/*.jpg"),
        ({"contents": [{"members": {"b/*.jpg": 2}}]}, "a/*.jpg"),
        ({"contents": []}, "1 lists of files of a.tar"),
    ],
)
def test_archive_that_only_a_pin_identifies(changes: dict, expected: str | None) -> None:
    found = list(a42_archives._archive(_archive(), {**RECORD, **changes}, {"a.tar": "a" * 64}))
    assert [problem[0] for problem in found] == ([expected] if expected else [])


def test_without_a_pin_any_sha256_will_do() -> None:
    assert list(a42_archives._archive(_archive(), RECORD, {})) == []
    wrong = list(a42_archives._archive(_archive(sha256="c" * 64), RECORD, {}))
    assert [told[0] for told in wrong] == [f"sha256 {'c' * 64} of a.tar", "confirmed True of a.tar"]


def test_pins_are_read_from_the_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert a42_archives._pins() == {}
    pins = {"schema_version": 1, "archives": {"a.tar": {"sha256": "a" * 64, "size": 9}}}
    Path("datasets.lock.json").write_text(canonical_json(pins))
    assert a42_archives._pins() == {"a.tar": "a" * 64}


def test_damaged_lock_file_is_a_finding(
    judged_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("datasets.lock.json").write_text("{")
    code, record = audit(judged_tree, tmp_path / "audit.json", **JUDGED)
    assert code == 1 and ids(record) == {"A42"}
    assert "datasets.lock.json" in json.dumps(record["findings"])


def _prepare(base: Path, params: Params, name: str) -> Artefact:
    job, home = prepare_job(params, name), base / name
    images = "images.arrow" if params.datasets[name].encoded else "images.npy"
    files = {"images": images, "labels": "labels.npy", "items": "items.csv", "card": "card.json"}
    outputs = {flag: home / file for flag, file in files.items()}
    given = {"spec": job.json, "raw": [], **outputs}
    return run(Call(job.stage, prepare_dataset, given, home / "manifest.json", job.code, 1))


@pytest.fixture
def mixed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A folder of images of several formats and shapes as two datasets, "files" and "pixels".

    One test image is a copy of a training image.
    """
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for number, (ending, mode) in enumerate([("png", "L"), ("jpg", "RGB"), ("jpg", "L")] * 2):
            path = tmp_path / f"root/{split}/class{number % 2}/{number}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = draw.integers(0, 255, (9 + number, 12, 3), dtype=np.uint8)
            Image.fromarray(noise).convert(mode).save(path)
    shutil.copy("root/train/class1/1.jpg", "root/test/class1/7.jpg")
    folder = {"kind": "image_folder", "root": str(tmp_path / "root"), "size": 8}
    files, pixels = {**folder, "storage": "encoded"}, {**folder, "resize": 10}
    return tiny_params(datasets={**PARAMS["datasets"], "files": files, "pixels": pixels})


def test_lists_of_really_prepared_datasets_are_right(mixed_files: Params, tmp_path: Path) -> None:
    opened = {}
    for name, images in (("digits", 1797), ("files", 13), ("pixels", 13)):
        steps: list[int] = []
        made = _prepare(tmp_path, mixed_files, name)
        opened[name] = open_dataset(made, lambda steps=steps: steps.append(1))
        assert (opened[name].differing, len(steps)) == ([], images)
    assert count_dataset(opened["files"], ("train",), opened["pixels"]) == 1
    assert count_dataset(opened["pixels"], ("train",), opened["files"]) == 1
    assert count_dataset(opened["digits"], ("train",), opened["files"]) == 0


def test_a_bank_is_compared_with_encoded_anchors(mixed_files: Params, tmp_path: Path) -> None:
    made = _prepare(tmp_path, mixed_files, "files")
    images = np.random.default_rng(1).integers(0, 255, (6, 2, 8, 8, 3), dtype=np.uint8)
    index = np.zeros((6, 2), [("anchor", "<i8"), ("candidate", "<i4")])
    bank = Artefact(tmp_path / "manifest.json", {})
    np.save(tmp_path / "index.npy", index.reshape(-1))
    np.save(tmp_path / "images.npy", images)
    drawn, table, anchors = a10_bank._open(bank, made)
    assert list(a10_bank._images(drawn, anchors, table)) == []
    images[3, 1] = open_prepared(made).images[3]
    np.save(tmp_path / "images.npy", images)
    drawn, table, anchors = a10_bank._open(bank, made)
    found = list(a10_bank._images(drawn, anchors, table))
    assert found == ["anchor 3 candidate 1 is its anchor"]
