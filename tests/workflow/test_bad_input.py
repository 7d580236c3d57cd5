"""Bad input stops Snakemake before any job, or before any training, with one message."""

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


def _refused(suite, code, message, *arguments):
    done = suite.run("snakemake", *arguments, check=False)
    text = done.stdout + done.stderr
    assert done.returncode == code, text
    assert message in text
    assert "Traceback" not in text
    assert not (suite.folder / "results").exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda p: p["methods"]["simclr"].update(temprature=1),
            'unknown key "temprature" (did you mean "temperature"?)',
        ),
        (lambda p: p["recipes"]["demo"].update(batch_size=1), "recipes.demo.batch_size"),
        (
            lambda p: p["runs"]["all"].update(dataset=["digit"]),
            'unknown dataset "digit" (did you mean "digits"?)',
        ),
        (
            lambda p: p["methods"].update(
                wmse={"label": "W", "recipe": "demo", "alignment_weight": 1}
            ),
            'unknown method "wmse"; known: all4one, barlow_twins, bsim, byol, dino, moco,',
        ),
        (
            lambda p: p["denoisers"]["digits"].update(channels=[8, 16, 16, 16, 16]),
            "attention has 2 levels",
        ),
    ],
    ids=[
        "misspelt key",
        "out of range",
        "unknown dataset",
        "unknown method",
        "levels that do not fit",
    ],
)
def test_params(fresh, edit, message):
    fresh.params(edit)
    _refused(fresh, 2, message)


def test_a_demanded_gpu_that_is_not_there(fresh):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    _refused(fresh, 4, "cuda was demanded", "--config", "device=cuda")


def test_a_key_given_twice(fresh):
    path = fresh.folder / "params.yaml"
    path.write_text(path.read_text() + "\nprofile: again\n")
    _refused(fresh, 2, 'gives the key "profile" twice')


def _photos(root):
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(np.full((9, 9, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
    return root


def _images(fresh, root):
    def edit(params):
        params["datasets"]["digits"] = {"kind": "image_folder", "root": str(root), "size": 8}
        params["tracking"] = False  # a store takes seconds to create, and none of this reaches it

    fresh.params(edit)


def test_a_missing_and_an_empty_image_folder(fresh, tmp_path):
    _images(fresh, tmp_path / "absent")
    _refused(fresh, 4, str(tmp_path / "absent"))
    (tmp_path / "absent").mkdir()
    _refused(fresh, 4, str(tmp_path / "absent"))


def test_an_unreadable_image_is_named_before_any_training(fresh, tmp_path):
    root = _photos(tmp_path / "photos")
    (root / "train" / "b" / "1.png").write_bytes(b"no image")
    _images(fresh, root)
    done = fresh.run("snakemake", check=False)
    text = done.stdout + done.stderr
    assert done.returncode == 1
    assert "train/b/1.png" in text
    assert "Traceback" not in text
    assert not (fresh.folder / "results/smoke/denoisers").exists()


def test_what_the_data_cannot_carry_is_refused_before_any_training(fresh):
    def too_much(params):
        params["recipes"]["demo"].update(batch_size=4096)
        params["methods"]["moco"].update(queue=4096)
        params["evaluation"]["knn"].update(k=1000)
        params["shards"] = 999
        params["tracking"] = False

    fresh.params(too_much)
    results = fresh.folder / "results/smoke"
    for code in (1, 2):  # found by the job check_data; then, with the data there, while parsing
        done = fresh.run("snakemake", "pretrain", check=False)
        text = done.stdout + done.stderr
        assert done.returncode == code, text
        assert "recipes.demo.batch_size: 4096 exceeds the 400 training images of dataset" in text
        assert "evaluation.knn.k: 1000 exceeds the 400" in text
        assert "shards: 999 exceeds the 400" in text
        assert "Traceback" not in text
        assert (results / "data/prepared/dtd-mini/manifest.json").exists()
        assert not {"denoisers", "banks", "runs"} & {path.name for path in results.iterdir()}


def test_an_unreadable_image_of_one_dataset_stops_training_on_the_others(fresh, tmp_path):
    root = _photos(tmp_path / "photos")
    (root / "train" / "b" / "1.png").write_bytes(b"no image")

    def transfer_to_photos(params):
        params["datasets"]["photos"] = {"kind": "image_folder", "root": str(root), "size": 8}
        params["evaluation"]["transfer"]["datasets"].append("photos")
        params["tracking"] = False

    fresh.params(transfer_to_photos)
    done = fresh.run("snakemake", "pretrain", check=False)
    assert done.returncode == 1
    assert "train/b/1.png" in done.stdout + done.stderr
    assert (fresh.folder / "results/smoke/data/prepared/digits/manifest.json").exists()
    assert not (fresh.folder / "results/smoke/denoisers").exists()
