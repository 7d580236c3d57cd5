"""items.csv: names of any kind survive, several labels stand side by side."""

import csv
import hashlib
from contextlib import closing

import numpy as np

from clsp.data.catalog import Item
from clsp.data.items import ItemsWriter, lines_digest, pixel_digest


def test_lines_are_what_was_added(tmp_path):
    names = ['a "quoted", name.png', "Bücher/ä.jpg", "data_batch_1.bin/00003"]
    with closing(ItemsWriter(tmp_path / "items.csv")) as listed:
        for name, label in zip(names, [3, (0, 7), -1], strict=True):
            listed.add("train", Item(lambda: None, label, name), "0" * 32, "f" * 32)
    with open(tmp_path / "items.csv", encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["split", "name", "label", "source", "stored"]
    assert [row[1] for row in rows] == names
    assert [row[2] for row in rows] == ["3", "0 7", "-1"]
    assert rows[0][3:] == ["0" * 32, "f" * 32]
    assert b"\r" not in (tmp_path / "items.csv").read_bytes()


def test_digests_are_those_of_the_pixels_whatever_their_layout():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    expected = hashlib.sha256(pixels.tobytes()).hexdigest()[:32]
    assert pixel_digest(pixels) == pixel_digest(np.asfortranarray(pixels)) == expected
    assert pixel_digest(pixels[:, ::-1]) != expected


def test_lines_are_told_apart():
    assert lines_digest(["ab", "c"]) != lines_digest(["a", "bc"])
    assert lines_digest(["x"]) == hashlib.sha256(b"x\n").hexdigest()
