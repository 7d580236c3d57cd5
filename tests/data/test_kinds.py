"""What is particular to kinds that are not fetched, and to CIFAR's binary records."""

import gzip

import numpy as np
import pytest
from mirror import take_as_published

from clsp.config.catalog import dataset_info
from clsp.data import download
from clsp.data.kinds import digits, fashion_mnist
from clsp.data.records import map_records, read_records, write_records
from clsp.runtime.errors import DataError


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
    assert len({item.name for items in source.splits.values() for item in items}) == 1797
    assert "0.25 of each class" in source.drawing and "seed 0" in source.drawing


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
    path.write_bytes(gzip.compress(header + values.tobytes(), 1))


def write_fashion(folder, train=20, test=10):
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        idx(np.zeros((count, 28, 28), np.uint8), folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = np.arange(count, dtype=np.uint8) % 10
        idx(labels, folder / f"{prefix}-labels-idx1-ubyte.gz")


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


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASHION_MNIST_ROOT", raising=False)
    monkeypatch.setattr(fashion_mnist, "INSTALLED", (tmp_path / "nothing",))


def test_fashion_mnist_that_cannot_be_downloaded(nothing_installed, monkeypatch):
    def offline(archive, *_, **__):
        raise DataError(f"{archive.name}: no route to host")

    monkeypatch.setattr(download, "obtain", offline)
    with pytest.raises(DataError, match=r"no route to host.*apt install dataset-fashion-mnist"):
        fashion_mnist.read(fashion_mnist.Config(), None)


def test_fashion_mnist_is_downloaded_where_it_is_not_installed(
    nothing_installed, monkeypatch, tmp_path
):
    write_fashion(tmp_path / "downloads")
    asked = []

    def obtain(archive, *_, **__):
        asked.append(archive.name)
        return download.Obtained(tmp_path / "downloads" / archive.name, "local", None)

    monkeypatch.setattr(download, "obtain", obtain)
    source = fashion_mnist.read(fashion_mnist.Config(), None)
    assert sorted(asked) == sorted(p.name for p in (tmp_path / "downloads").iterdir())
    assert len(source.splits["train"]) == 20
    assert source.splits["test"][3].name == "t10k/00003"


def test_a_named_folder_of_fashion_mnist_must_hold_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST_ROOT", str(tmp_path))
    with pytest.raises(DataError, match=r"FASHION_MNIST_ROOT=.*does not hold the four"):
        fashion_mnist.read(fashion_mnist.Config(), None)


def test_labels_that_do_not_fit_the_images(tmp_path, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST_ROOT", str(tmp_path))
    write_fashion(tmp_path)
    idx(np.zeros(19, np.uint8), tmp_path / "train-labels-idx1-ubyte.gz")
    take_as_published(tmp_path, monkeypatch)
    with pytest.raises(DataError, match="train images and labels do not fit"):
        fashion_mnist.read(fashion_mnist.Config(), None)
    idx(np.full(20, 10, np.uint8), tmp_path / "train-labels-idx1-ubyte.gz")
    take_as_published(tmp_path, monkeypatch)
    with pytest.raises(DataError, match="train images and labels do not fit"):
        fashion_mnist.read(fashion_mnist.Config(), None)


def test_a_copy_that_is_not_the_published_one(tmp_path, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST_ROOT", str(tmp_path))
    write_fashion(tmp_path, 60000, 10000)  # of the right size, and black
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: not the published file"):
        fashion_mnist.read(fashion_mnist.Config(), None)
    take_as_published(tmp_path, monkeypatch)
    fashion_mnist.read(fashion_mnist.Config(), None)
    idx(np.zeros(10000, np.uint8), tmp_path / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: not the published file"):
        fashion_mnist.read(fashion_mnist.Config(), None)


def test_a_full_sized_fashion_mnist(tmp_path, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST_ROOT", str(tmp_path))
    write_fashion(tmp_path, 60000, 10000)
    take_as_published(tmp_path, monkeypatch)
    source = fashion_mnist.read(fashion_mnist.Config(), None)
    assert {s: len(i) for s, i in source.splits.items()} == {
        "train": 60000,
        "val": 0,
        "test": 10000,
    }
    assert source.classes == dataset_info("fashion_mnist").class_names
    assert len({item.name for items in source.splits.values() for item in items}) == 70000


@pytest.mark.skipif(
    not fashion_mnist.INSTALLED[0].is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_the_installed_fashion_mnist(monkeypatch):
    monkeypatch.delenv("FASHION_MNIST_ROOT", raising=False)
    source = fashion_mnist.read(fashion_mnist.Config(), None)
    assert [len(source.splits[split]) for split in ("train", "val", "test")] == [60000, 0, 10000]
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
    assert [item.name for item in items] == ["a.bin/00000", "a.bin/00001", "a.bin/00002"]
    assert all(item.path is None for item in items)
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
    with pytest.raises(DataError, match=r"gone\.bin: cannot be read"):
        map_records(tmp_path / "gone.bin", 10)
