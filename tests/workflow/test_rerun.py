"""An edit reruns exactly what depends on it."""

import shutil

import pytest
from PIL import Image

pytestmark = pytest.mark.slow
RENDER = {
    "count_duplicates",
    "collect_results",
    "judge_claims",
    "render_table",
    "render_figure",
    "render_report",
    "audit_suite",
}


def _judging(runs, floors=0):
    """Jobs that judge so many runs and floors."""
    judged = dict.fromkeys(("extract_features", "probe_transfer", "probe_few_shot"), runs + floors)
    return judged | {"probe_encoder": runs, "fine_tune_encoder": runs}


def _science(planned):
    return {rule: count for rule, count in planned.items() if rule not in RENDER}


def test_what_changes_no_number_reruns_no_science(suite):
    losses = (suite.folder / "clsp/pretrain/losses/alignment.py").read_text()
    reworded = losses.replace('"""', '"""Reworded. ', 1)
    (suite.folder / "clsp/pretrain/losses/alignment.py").write_text(reworded)
    text = (suite.folder / "clsp/pretrain/run.py").read_text()
    (suite.folder / "clsp/pretrain/run.py").write_text(text + "\n# a comment\n")
    simclr = (suite.folder / "clsp/pretrain/methods/simclr.py").read_text()
    (suite.folder / "clsp/pretrain/methods/another.py").write_text(simclr)
    suite.params(lambda p: p.update(device="cpu", tracking=False))
    assert _science(suite.planned()) == {}


def test_one_method_reruns_alone(suite):
    suite.params(lambda p: p["methods"]["moco"].update(temperature=0.3))
    assert _science(suite.planned()) == {"pretrain_encoder": 2, **_judging(2)}


def test_the_code_of_one_method_reruns_alone(suite):
    path = suite.folder / "clsp/pretrain/methods/moco.py"
    path.write_text(path.read_text() + "\n\nUNUSED = 1\n")
    assert _science(suite.planned()) == {"pretrain_encoder": 2, **_judging(2)}


def test_a_shared_loss_reruns_every_run(suite):
    path = suite.folder / "clsp/pretrain/losses/alignment.py"
    path.write_text(path.read_text() + "\n\nUNUSED = 1\n")
    assert _science(suite.planned())["pretrain_encoder"] == 4


def test_a_bank_reruns_itself_and_the_runs_that_use_it(suite):
    suite.params(lambda p: p["banks"]["digits.mix"].update(eta=0.5))
    assert _science(suite.planned()) == {
        "generate_shard": 2,
        "gather_bank": 1,
        "measure_bank": 1,
        "pretrain_encoder": 2,
        **_judging(2),
    }


def test_an_evaluation_setting_reruns_no_training(suite):
    suite.params(lambda p: p["evaluation"]["knn"].update(k=10))
    assert _science(suite.planned()) == {"probe_encoder": 4}


def test_a_new_seed_is_the_only_thing_that_runs(suite):
    suite.params(lambda p: p["runs"]["all"].update(seed=[0, 1]))
    planned = _science(suite.planned())
    assert planned == {"pretrain_encoder": 4, **_judging(4, floors=1)}


def test_a_lost_file_is_made_again(suite):
    (suite.folder / "results/smoke/runs/digits.tiny.moco.none.s0/encoder.safetensors").unlink()
    assert _science(suite.planned("pretrain")) == {"pretrain_encoder": 1}


def test_a_new_dataset_retrains_nothing(suite):
    """The check before the first training is no input of any training."""

    def add(params):
        params["datasets"]["pets-mini"] = dict(params["datasets"]["cifar10-mini"], kind="pets")
        params["evaluation"]["transfer"]["datasets"].append("pets-mini")

    suite.params(add)
    assert _science(suite.planned()) == {
        "fetch_dataset": 1,
        "prepare_dataset": 1,
        **_judging(4, floors=2),
    }


def test_another_size_fetches_nothing(suite):
    suite.params(lambda p: p["datasets"]["dtd-mini"].update(size=24))
    planned = _science(suite.planned())
    assert planned == {"encode_dataset": 1, **_judging(4, floors=2)}


def test_a_lost_record_of_the_check_reruns_nothing(suite):
    for path in (suite.folder / "results/smoke/provenance/data-check").iterdir():
        path.unlink()
    assert suite.planned() == {}


def test_settings_that_prepared_data_cannot_carry_are_refused_at_once(suite):
    suite.params(lambda p: p["evaluation"]["knn"].update(k=1000))
    done = suite.run("snakemake", "-n", check=False)
    assert done.returncode == 2
    text = done.stdout + done.stderr
    assert "evaluation.knn.k: 1000 exceeds the 400 training images of dataset digits" in text


def test_a_folder_that_moved_or_is_away_reruns_nothing(suite, tmp_path):
    root = suite.folder / "photos"
    for split in ("train", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for shade in (10, 90):
                picture = Image.new("RGB", (9, 9), (shade, 2 * shade, ord(name) + shade))
                picture.save(root / split / name / f"{shade}.png")

    def add(params):
        params["datasets"]["photos"] = {"kind": "image_folder", "root": "photos", "size": 8}
        params["evaluation"]["transfer"]["datasets"] = ["photos"]

    suite.params(add)
    prepared = "results/smoke/data/prepared/photos/card.json"
    suite.run("snakemake", prepared)
    assert suite.planned(prepared) == {}
    shutil.copytree(root, tmp_path / "copied", copy_function=shutil.copyfile)  # new time stamps
    shutil.rmtree(root)
    assert suite.planned(prepared) == {}
    (tmp_path / "copied").rename(root)
    assert suite.planned(prepared) == {}
    (root / "train" / "a" / "10.png").write_bytes((root / "train" / "b" / "90.png").read_bytes())
    assert suite.planned(prepared) == {"prepare_dataset": 1}
