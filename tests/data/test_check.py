"""check-data: what the prepared data cannot carry is named with its key, all at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clsp.config.load import load_params, read_yaml
from clsp.config.plan import datasets_needed, prepare_job
from clsp.data.check import Counts, check_data, check_prepared, find_problems, read_counts
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact, write_manifest

ROOT = Path(__file__).parents[2]
PLENTY = {"train": [600, 600], "val": [0, 0], "test": [9, 9]}


def demo():
    """The demo without quality figures, whose own demands have tests of their own."""
    return {**read_yaml(ROOT / "params.yaml"), "quality": None}


@pytest.fixture(scope="module")
def params():
    return load_params(demo())


def counts_of(params, **changed):
    plenty = dict.fromkeys(datasets_needed(params), Counts(1200, 18, 2, 2, 1200))
    return plenty | changed


def write_prepared(folder, params, name, counts=PLENTY, **recorded):
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    card = folder / "card.json"
    train, test = (sum(counts[split]) for split in ("train", "test"))
    splits = {"train": [0, train], "val": [train, train], "test": [train, train + test]}
    about = {"counts": counts, "splits": splits, "unlabelled": 0, "fingerprint": ""}
    card.write_text(json.dumps(about))
    job = prepare_job(params, name)
    recorded = {"spec": job.spec, "code": job.code, **recorded}
    predicate = {
        "step": "prepare-dataset",
        "externalParameters": {"spec": recorded["spec"]},
        "internalParameters": {"code": recorded["code"]},
    }
    return write_manifest(folder / "manifest.json", {"card.json": card}, [], predicate)


@pytest.fixture
def prepared(params, tmp_path):
    return [write_prepared(tmp_path, params, name) for name in datasets_needed(params)]


def test_plenty_of_data_is_no_problem(params):
    assert find_problems(params, 2, counts_of(params)) == []


def test_every_key_that_asks_too_much_is_named_once(params):
    counts = counts_of(params, digits=Counts(15, 18, 2, 2, 15))
    assert find_problems(params, 16, counts) == [
        "recipes.demo.batch_size: 64 exceeds the 15 training images of dataset digits",
        "evaluation.knn.k: 20 exceeds the 15 training images of dataset digits",
        "denoisers.digits.batch_size: 32 exceeds the 15 training images of dataset digits",
        "shards: 16 exceeds the 15 training images of dataset digits",
    ]
    exact = counts_of(params, digits=Counts(64, 18, 2, 2, 64))
    assert find_problems(params, 64, exact) == []


def test_methods_judge_the_number_of_images_themselves():
    data = demo()
    options = {"hidden": 8, "projection": 4, "forward": "joint", "temperature": 0.1}
    options |= {"prototypes": 65, "epsilon": 0.05, "iterations": 3, "stored": 64}
    options |= {"stored_from_epoch": 0, "frozen_prototype_epochs": 0}
    entry = {"method": "swav", "label": "Clusters", "recipe": "demo", "alignment_weight": 1}
    data["methods"]["clusters"] = {**entry, **options}
    place = {"dataset": ["digits"], "encoder": ["tiny"], "positives": ["none"], "seed": [0, 1]}
    data["runs"] = {"main": {**place, "method": ["clusters"]}}
    params = load_params(data)
    assert find_problems(params, 2, counts_of(params, digits=Counts(65, 18, 2, 2, 65))) == []
    assert find_problems(params, 2, counts_of(params, digits=Counts(64, 18, 2, 2, 64))) == [
        "methods.clusters: prototypes 65 are more than the 64 images of dataset digits"
    ]


def test_unlabelled_images_are_no_neighbours_and_no_classes(params):
    counts = counts_of(params, digits=Counts(1200, 18, 2, 2, 15))
    assert find_problems(params, 2, counts) == [
        "evaluation.knn.k: 20 exceeds the 15 labelled training images of dataset digits"
    ]


def test_what_uses_labels_needs_all_of_them():
    data = demo()
    data["positives"]["oracle"] = {"source": "same_class", "label": "Oracle {method}"}
    supervised = {"method": "supervised", "label": "Supervised", "recipe": "demo"}
    data["methods"]["supervised"] = {**supervised, "alignment_weight": 1, "forward": "joint"}
    data["comparison"]["labels"] = "marked"
    place = {"dataset": ["digits"], "encoder": ["tiny"], "seed": [0, 1]}
    data["runs"] = {
        "one": {**place, "method": ["supervised"], "positives": ["none"]},
        "two": {**place, "method": ["simclr"], "positives": ["oracle"]},
    }
    params = load_params(data)
    assert find_problems(params, 2, counts_of(params)) == []
    counts = counts_of(params, digits=Counts(1200, 18, 2, 2, 1000))
    lacking = "uses labels, but 200 of the 1200 training images of dataset digits have none"
    found = find_problems(params, 2, counts)
    assert found == [f"methods.supervised: {lacking}", f"positives.oracle: {lacking}"]


def test_counts_of_a_card_with_unlabelled_images(tmp_path):
    card = {"counts": {"train": [3, 0], "val": [0, 0], "test": [2, 2]}, "unlabelled": 7}
    card["splits"] = {"train": [0, 10], "val": [10, 10], "test": [10, 13]}
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert read_counts(tmp_path / "card.json") == Counts(10, 3, 1, 2, 3)


def test_datasets_to_judge_on_need_two_classes(params):
    counts = counts_of(params, **{"dtd-mini": Counts(1200, 0, 2, 0, 1200)})
    (line,) = find_problems(params, 2, counts)
    assert line.startswith("datasets.dtd-mini: test has 0 images of 0 classes")
    counts = counts_of(params, digits=Counts(1200, 18, 1, 1, 1200))
    assert len(find_problems(params, 2, counts)) == 2


def test_datasets_not_prepared_yet_are_passed_over(params):
    assert find_problems(params, 10**6, {}) == []


def test_the_stage_writes_what_it_saw(params, prepared, tmp_path):
    outcome = check_data(params, prepared, 2, tmp_path / "checked.json")
    written = json.loads((tmp_path / "checked.json").read_text())
    assert set(written["datasets"]) == set(datasets_needed(params))
    assert written["datasets"]["digits"]["train"] == 1200
    assert outcome.counters == {"datasets": len(prepared)}


def test_the_stage_refuses_with_all_keys_and_writes_nothing(params, prepared, tmp_path):
    small = {"train": [5, 5], "val": [0, 0], "test": [9, 9]}
    write_prepared(tmp_path, params, "digits", small)
    with pytest.raises(ConfigError) as caught:
        check_data(params, prepared, 2, tmp_path / "checked.json")
    text = str(caught.value)
    assert "recipes.demo.batch_size: 64 exceeds the 10" in text
    assert "denoisers.digits.batch_size: 32" in text
    assert not (tmp_path / "checked.json").exists()


def test_a_dataset_that_was_not_given(params, prepared, tmp_path):
    with pytest.raises(ConfigError, match="--datasets: digits not among those given"):
        check_data(params, prepared[1:], 2, tmp_path / "checked.json")


@pytest.mark.parametrize("text", ["{}", "[]", '{"counts": 5}', '{"counts": {"train": 5}}'])
def test_a_damaged_card(tmp_path, text):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(DataError, match=r"card\.json: gives no counts"):
        read_counts(tmp_path / "card.json")


def judge(params, folder, contents=""):
    cards = {name: folder / name / "card.json" for name in datasets_needed(params)}
    check_prepared(params, cards, dict.fromkeys(cards, contents))


def test_prepared_data_are_judged_without_a_job(params, tmp_path):
    judge(params, tmp_path)
    small = {"train": [5, 5], "val": [0, 0], "test": [9, 9]}
    write_prepared(tmp_path, params, "digits", small)
    with pytest.raises(ConfigError, match=r"recipes\.demo\.batch_size: 64 exceeds the 10"):
        judge(params, tmp_path)
    judge(params, tmp_path, contents="another folder now")


SMALL = {"train": [5, 5], "val": [0, 0], "test": [9, 9]}  # refused, where it is judged at all
REFUSED = r"recipes\.demo\.batch_size: 64 exceeds the 10"


@pytest.mark.parametrize("recorded", [{"code": "old"}, {"spec": {"kind": "digits"}}])
def test_data_that_will_be_prepared_anew_are_not_judged(params, tmp_path, recorded):
    write_prepared(tmp_path, params, "digits", SMALL, **recorded)
    judge(params, tmp_path)
    write_prepared(tmp_path, params, "digits", SMALL)
    with pytest.raises(ConfigError, match=REFUSED):
        judge(params, tmp_path)


@pytest.mark.parametrize("damaged", ["manifest.json", "card.json"])
@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_damaged_files_are_left_to_the_audit(params, tmp_path, damaged, text):
    artefact: Artefact = write_prepared(tmp_path, params, "digits", SMALL)
    file = artefact.folder / damaged
    whole = file.read_text()
    file.write_text(text)
    judge(params, tmp_path)
    file.write_text(whole)
    with pytest.raises(ConfigError, match=REFUSED):
        judge(params, tmp_path)


def test_one_damaged_dataset_does_not_hide_another(params, tmp_path):
    other = next(name for name in datasets_needed(params) if name != "digits")
    write_prepared(tmp_path, params, other).manifest.write_text("{")
    write_prepared(tmp_path, params, "digits", SMALL)
    with pytest.raises(ConfigError, match=REFUSED):
        judge(params, tmp_path)


def test_it_needs_no_torch():
    code = "import sys, clsp.data.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
