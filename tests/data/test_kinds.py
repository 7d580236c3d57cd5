"""What is particular to single kinds, and how each meets malformed files."""

import gzip

import numpy as np
import pytest

from clsp.config.schema import KINDS, DatasetSpec
from clsp.data import miniature, motifs
from clsp.data.fetch import fetch_dataset
from clsp.data.kinds import digits, fashion_mnist
from clsp.data.records import read_records, write_records
from clsp.runtime.errors import DataError
from clsp.runtime.registry import load


@pytest.fixture
def drawn(tmp_path):
    """Draws a miniature, lets a test spoil it, and reads it."""

    def draw(kind, spoil):
        spec = DatasetSpec(kind=kind, size=8, source="miniature", seed=0)
        fetch_dataset(spec, tmp_path / "files")
        spoil(tmp_path / "files")
        return load(KINDS, kind, "kind").read(spec.settings(), tmp_path / "files")

    return draw


def test_digits_are_all_there_and_stratified():
    config = digits.Config(test_fraction=0.25, seed=0)
    source = digits.read(config, None)
    counts = {split: len(items) for split, items in source.splits.items()}
    assert sum(counts.values()) == 1797 and counts["val"] == 0
    labels = np.array([item.label for item in source.splits["test"]])
    everything = np.array([i.label for items in source.splits.values() for i in items])
    share = np.bincount(labels) / np.bincount(everything)
    np.testing.assert_allclose(share, 0.25, atol=0.004)
    image = source.splits["train"][0].open()
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert max(item.open().max() for item in source.splits["train"][:20]) == 255


def test_the_split_of_digits_depends_on_its_seed():
    labels = np.repeat([0, 1], 10)
    first = digits.test_rows(labels, 0.3, 0)
    assert first.sum() == 6 and first[:10].sum() == 3
    np.testing.assert_array_equal(first, digits.test_rows(labels, 0.3, 0))
    assert (first != digits.test_rows(labels, 0.3, 1)).any()
    assert digits.test_rows(labels, 0.001, 0).sum() == 2  # one of each class stays for test
    assert digits.test_rows(labels, 0.999, 0).sum() == 18  # and one for train


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1, 2])
def test_a_test_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="test_fraction"):
        digits.Config(test_fraction=fraction, seed=0)


def idx(values, path):
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes()))


def test_idx_files(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    idx(values, tmp_path / "a.gz")
    np.testing.assert_array_equal(fashion_mnist.read_idx(tmp_path / "a.gz", 3), values)
    with pytest.raises(DataError, match="not an idx file of bytes with 1 dimensions"):
        fashion_mnist.read_idx(tmp_path / "a.gz", 1)
    whole = gzip.decompress((tmp_path / "a.gz").read_bytes())
    (tmp_path / "b.gz").write_bytes(gzip.compress(whole[:-1]))
    with pytest.raises(DataError, match=r"b\.gz: truncated"):
        fashion_mnist.read_idx(tmp_path / "b.gz", 3)
    (tmp_path / "c.gz").write_bytes((tmp_path / "a.gz").read_bytes()[:-12])
    with pytest.raises(DataError, match=r"c\.gz: cannot be read"):
        fashion_mnist.read_idx(tmp_path / "c.gz", 3)
    with pytest.raises(DataError, match=r"gone\.gz"):
        fashion_mnist.read_idx(tmp_path / "gone.gz", 3)


def test_fashion_mnist_that_cannot_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASHION_MNIST_ROOT", raising=False)
    monkeypatch.setattr(fashion_mnist, "INSTALLED", (tmp_path / "nothing",))

    def offline():
        raise OSError("no route to host")

    monkeypatch.setattr(fashion_mnist, "_download", offline)
    with pytest.raises(DataError, match=r"no route to host.*apt install dataset-fashion-mnist"):
        fashion_mnist.read(fashion_mnist.Config(), None)


def test_a_named_folder_of_fashion_mnist_must_hold_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST_ROOT", str(tmp_path))
    with pytest.raises(DataError, match=r"FASHION_MNIST_ROOT=.*does not hold the four"):
        fashion_mnist.read(fashion_mnist.Config(), None)


@pytest.mark.skipif(
    not fashion_mnist.INSTALLED[0].is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_the_installed_fashion_mnist(monkeypatch):
    monkeypatch.delenv("FASHION_MNIST_ROOT", raising=False)
    source = fashion_mnist.read(fashion_mnist.Config(), None)
    assert {s: len(i) for s, i in source.splits.items()} == {
        "train": 60000,
        "val": 0,
        "test": 10000,
    }
    assert source.splits["train"][0].label == 9  # the ankle boot that opens the set


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_records_come_back(label_bytes, tmp_path):
    stream = np.random.default_rng(0)
    images = stream.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    labels = np.array([[7, 0], [7, 2], [7, 1]])[:, 2 - label_bytes :]
    write_records(tmp_path / "a.bin", images, labels)
    assert (tmp_path / "a.bin").stat().st_size == 3 * (3072 + label_bytes)
    items = read_records(tmp_path / "a.bin", label_bytes, 3)
    assert [item.label for item in items] == [0, 2, 1]
    np.testing.assert_array_equal(np.stack([item.open() for item in items]), images)
    red = (tmp_path / "a.bin").read_bytes()[label_bytes : label_bytes + 1024]
    assert red == images[0, :, :, 0].tobytes()  # planes: all red, then green, then blue
    with pytest.raises(DataError, match="record 1 has label 2, expected below 2"):
        read_records(tmp_path / "a.bin", label_bytes, 2)


@pytest.mark.parametrize("size", [0, 3072, 3074])
def test_records_of_the_wrong_size(size, tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(size))
    with pytest.raises(DataError, match=f"{size} bytes are not a number of 3073-byte records"):
        read_records(tmp_path / "a.bin", 1, 10)


def overwrite(name, text):
    return lambda files: (files / name).write_text(text)


@pytest.mark.parametrize(
    ("kind", "name", "text", "message"),
    [
        ("cifar10", "cifar-10-batches-bin/batches.meta.txt", "\n", "the list is empty"),
        ("dtd", "dtd/labels/val1.txt", "banded_0001.jpg\n", "expected class/name.jpg"),
        ("dtd", "dtd/labels/test1.txt", "woven/woven_1.jpg\n", "lacks class 'woven'"),
        ("food101", "food-101/meta/test.json", "{", "not valid JSON"),
        ("food101", "food-101/meta/test.json", "[]", "expected an object"),
        ("food101", "food-101/meta/test.json", '{"pizza": ["pizza/1"]}', "lacks class 'pizza'"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "Abyssinian_1 0 1 1\n", "expected name"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "Abyssinian_1 9 1 1\n", "have gaps"),
        (
            "aircraft",
            "fgvc-aircraft-2013b/data/images_variant_val.txt",
            "0000001 Spitfire\n",
            "variant 'Spitfire' is not in variants.txt",
        ),
        ("flowers102", "flowers-102/setid.mat", "MATLAB 5.0 nonsense", "not a readable mat file"),
        ("flowers102", "flowers-102/imagelabels.mat", "", "not a readable mat file"),
    ],
)
def test_malformed_lists_are_named(drawn, kind, name, text, message):
    with pytest.raises(DataError, match=message) as caught:
        drawn(kind, overwrite(name, text))
    assert "files" in str(caught.value)


def test_flowers_outside_the_labels(drawn):
    def spoil(files):
        numbers = {key: np.array([[1, 9999]], np.uint16) for key in ("trnid", "valid", "tstid")}
        miniature.save_mat(files / "flowers-102" / "setid.mat", numbers)

    with pytest.raises(DataError, match=r"setid\.mat: names images outside 1\.\.200"):
        drawn("flowers102", spoil)


def test_flowers_without_a_split(drawn):
    def spoil(files):
        miniature.save_mat(files / "flowers-102" / "setid.mat", {"trnid": np.array([[1]])})

    with pytest.raises(DataError, match="holds no valid"):
        drawn("flowers102", spoil)


def test_caltech_with_too_few_images(drawn):
    def spoil(files):
        for number in range(12):
            (files / f"caltech101/101_ObjectCategories/anchor/image_{number + 1:04d}.jpg").unlink()

    with pytest.raises(DataError, match="anchor: 30 images, expected more than 30"):
        drawn("caltech101", spoil)


def test_a_stray_file_in_caltech_is_not_an_image(drawn):
    def spoil(files):
        (files / "caltech101/101_ObjectCategories/BACKGROUND_Google/tmp").write_bytes(b"")

    assert len(drawn("caltech101", spoil).splits["train"]) == 150


def test_every_image_of_a_miniature_has_its_own_draw():
    pictures = {
        miniature.paint(motifs.plain_shapes, seed, kind, label, number, 8).tobytes()
        for seed in (0, 1)
        for kind in ("cifar10", "dtd")
        for label in (0, 1)
        for number in (0, 1)
    }
    assert len(pictures) == 16


def test_splits_of_a_miniature_share_no_number():
    drawn = [pair for split in ("train", "val", "test") for pair in miniature.examples(split, 3)]
    assert len(set(drawn)) == len(drawn) == 3 * 40
