"""Folders and files with odd names: read as they are, and never taken for shell or options."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

COMPOSED, PARTED = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
CLASSES = ["-rf", "$(touch pwned)", "a b; touch pwned", "`touch pwned`", COMPOSED, PARTED, "'\"&"]
ROOTS = ["photos of $(touch pwned)", f"-n {COMPOSED}{PARTED} & touch pwned", "two\nlines"]
PREPARED = "results/smoke/data/prepared/digits"


def _photos(root):
    """Two images of every class in train and test."""
    stream = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in (f"{COMPOSED} 1.png", f"-2 {PARTED}.png"):
                pixels = stream.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / number)
    return root


@pytest.mark.parametrize("name", ROOTS, ids=["command", "option", "line feed"])
def test_a_folder_of_images(fresh, tmp_path, name):
    root = _photos(tmp_path / name)

    def edit(params):
        params["datasets"]["digits"] = {"kind": "image_folder", "root": str(root), "size": 8}
        params["tracking"] = False

    fresh.params(edit)
    done = fresh.run("snakemake", f"{PREPARED}/manifest.json", check=False)
    text = done.stdout + done.stderr
    assert "Traceback" not in text and not list(tmp_path.rglob("pwned"))
    if done.returncode:  # refused, by name and before anything was made
        assert done.returncode == 2 and "root" in text, text
        assert not (fresh.folder / "results").exists()
        return
    card = json.loads((fresh.folder / PREPARED / "card.json").read_text(encoding="utf-8"))
    assert sorted(card["classes"]) == sorted(CLASSES)  # the two ways to write é are two classes
    assert card["counts"]["train"] == [2] * len(CLASSES)
