"""Malformed and missing files of fetched kinds: always an error that names the file."""

import numpy as np
import pytest
import reading
from reading import FETCHED

from clsp.data import miniature
from clsp.runtime.errors import DataError


def overwrite(name, text):
    return lambda files: (files / name).write_text(text)


@pytest.fixture
def spoiled(tmp_path):
    """Draws a miniature, spoils it, and reads it."""

    def read(kind, spoil, **options):
        spoil(reading.draw(kind, tmp_path / "files"))
        return reading.read(kind, tmp_path / "files", **options)

    return read


@pytest.mark.parametrize("kind", FETCHED)
def test_an_empty_folder_is_named(kind, tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        reading.read(kind, tmp_path)


VOC = "VOCdevkit/VOC2007/ImageSets/Main"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("aircraft", "fgvc-aircraft-2013b/data/variants.txt"),
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt"),
        ("cars", "stanford_cars/devkit/cars_train_annos.mat"),
        ("cars", "stanford_cars/devkit/cars_meta.mat"),
        ("cars", "stanford_cars/cars_test_annos_withlabels.mat"),
        ("cifar10", "cifar-10-batches-bin/data_batch_3.bin"),
        ("cifar10", "cifar-10-batches-bin/batches.meta.txt"),
        ("cifar100", "cifar-100-binary/test.bin"),
        ("dtd", "dtd/labels/val1.txt"),
        ("flowers102", "flowers-102/setid.mat"),
        ("flowers102", "flowers-102/imagelabels.mat"),
        ("food101", "food-101/meta/test.json"),
        ("pets", "oxford-iiit-pet/annotations/trainval.txt"),
        ("stl10", "stl10_binary/class_names.txt"),
        ("stl10", "stl10_binary/train_y.bin"),
        ("stl10", "stl10_binary/test_X.bin"),
        ("sun397", "SUN397/ClassName.txt"),
        ("sun397", "SUN397/Testing_01.txt"),
        ("voc2007", f"{VOC}/train.txt"),
        ("voc2007", f"{VOC}/bird_val.txt"),
        ("voc2007", f"{VOC}/boat_test.txt"),
    ],
)
def test_a_missing_list_is_named(kind, name, spoiled):
    with pytest.raises(DataError, match=name.split("/")[-1]):
        spoiled(kind, lambda files: (files / name).unlink())


@pytest.mark.parametrize(
    ("kind", "name", "text", "message"),
    [
        ("cifar10", "cifar-10-batches-bin/batches.meta.txt", "\n", "the list is empty"),
        ("cifar10", "cifar-10-batches-bin/batches.meta.txt", "a\nb", "expected below 2"),
        ("dtd", "dtd/labels/val1.txt", "banded_0001.jpg\n", "not as torchvision expects"),
        ("dtd", "dtd/labels/test1.txt", "woven/woven_1.jpg\n", r"other classes.*'woven'"),
        ("dtd", "dtd/labels/train1.txt", "", "train1.txt: "),
        ("food101", "food-101/meta/test.json", "{", "test.json: not as torchvision expects"),
        ("food101", "food-101/meta/test.json", "[]", "test.json: not as torchvision expects"),
        ("food101", "food-101/meta/test.json", '{"pizza": ["pizza/1"]}', "'pizza'"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "beagle_1 5 1\n", "test.txt: not as"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "beagle_1 x 1 1\n", "test.txt: not as"),
        ("pets", "oxford-iiit-pet/annotations/trainval.txt", "a_1 9 1 1\n", "class number 9"),
        (
            "pets",
            "oxford-iiit-pet/annotations/trainval.txt",
            "a_1 1 1 1\nb_1 1 1 1\n",
            "lists no image of class '[ab]'",
        ),
        (
            "aircraft",
            "fgvc-aircraft-2013b/data/images_variant_val.txt",
            "0000001 Spitfire\n",
            r"images_variant_val\.txt.*KeyError: 'Spitfire'",
        ),
        ("aircraft", "fgvc-aircraft-2013b/data/variants.txt", "", r"variants\.txt: not as"),
        ("flowers102", "flowers-102/setid.mat", "MATLAB 5.0 nonsense", r"setid\.mat"),
        ("flowers102", "flowers-102/imagelabels.mat", "", r"imagelabels\.mat"),
        ("cars", "stanford_cars/devkit/cars_meta.mat", "nonsense", r"cars_meta\.mat"),
        ("cars", "stanford_cars/cars_test_annos_withlabels.mat", "", "annos_withlabels"),
        ("sun397", "SUN397/ClassName.txt", "abbey\n", "expected /letter/class, found 'abbey'"),
        ("sun397", "SUN397/ClassName.txt", "/a/abbey\n/a/abbey\n", "names a class twice"),
        ("sun397", "SUN397/ClassName.txt", "/a/abbey\n/a/zoo\n", "found '/a/airplane_cabin/"),
        ("sun397", "SUN397/Testing_01.txt", "/z/zoo/sun_1.jpg\n", "found '/z/zoo/sun_1.jpg'"),
        ("sun397", "SUN397/Testing_01.txt", "/a/abbey/sun_1.jpg\n", "no image of '/a/airplane_c"),
        ("voc2007", f"{VOC}/bird_val.txt", "000001 2\n", "bird_val.txt: expected name and 1, 0"),
        ("voc2007", f"{VOC}/bird_val.txt", "000001\n", "bird_val.txt: expected name and 1, 0"),
        ("voc2007", f"{VOC}/bird_val.txt", "000999 1\n", "1 images, expected the 60 .* in 00008"),
        ("voc2007", f"{VOC}/val.txt", "\n", "val.txt: the list is empty"),
        ("stl10", "stl10_binary/train_y.bin", "\x01\x02", "train_y.bin: 2 labels for 30 images"),
        ("stl10", "stl10_binary/train_y.bin", "\x01" * 29 + "\x06", "label 6 in row 29, .* 1 to 5"),
        ("stl10", "stl10_binary/train_y.bin", "\x01" * 29 + "\x00", "label 0 in row 29"),
        ("stl10", "stl10_binary/test_X.bin", "x" * 27647, "not a number of 27648-byte records"),
    ],
)
def test_malformed_lists_are_named(kind, name, text, message, spoiled):
    with pytest.raises(DataError, match=message) as caught:
        spoiled(kind, overwrite(name, text))
    assert "files" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 2\n" * 9, "9 lines, expected 10"),
        ("0 1 30\n" * 10, "line 3: expected rows from 0 to 29"),
        ("0 1 x\n" * 10, "line 3: expected rows from 0 to 29"),
        ("0 1 1\n" * 10, "line 3: names a row twice"),
    ],
)
def test_malformed_folds(text, message, spoiled):
    with pytest.raises(DataError, match=rf"fold_indices\.txt: {message}"):
        spoiled("stl10", overwrite("stl10_binary/fold_indices.txt", text), fold=2)


def test_the_unlabelled_images_are_needed_only_if_asked_for(spoiled, tmp_path):
    source = spoiled("stl10", lambda files: (files / "stl10_binary/unlabeled_X.bin").unlink())
    assert len(source.splits["train"]) == 30
    with pytest.raises(DataError, match=r"unlabeled_X\.bin: cannot be read"):
        reading.read("stl10", tmp_path / "files", train="unlabelled")


def test_flowers_outside_the_labels(spoiled):
    def spoil(files):
        numbers = {key: np.array([[1, 9999]], np.uint16) for key in ("trnid", "valid", "tstid")}
        miniature.save_mat(files / "flowers-102" / "setid.mat", numbers)

    with pytest.raises(DataError, match=r"setid\.mat, .*KeyError: 9999"):
        spoiled("flowers102", spoil)


def test_flowers_without_a_split(spoiled):
    def spoil(files):
        miniature.save_mat(files / "flowers-102" / "setid.mat", {"trnid": np.arange(1, 61)[None]})

    with pytest.raises(DataError, match=r"setid\.mat, .*KeyError: 'valid'"):
        spoiled("flowers102", spoil)


def test_an_image_in_two_lists(spoiled):
    def spoil(files):
        lists = files / "SUN397"
        (lists / "Testing_01.txt").write_text((lists / "Training_01.txt").read_text())

    with pytest.raises(DataError, match=r"SUN397: lists a/abbey/.*twice, in train and in test"):
        spoiled("sun397", spoil)


def test_caltech_with_too_few_images(spoiled):
    def spoil(files):
        for number in range(12):
            (files / f"caltech101/101_ObjectCategories/anchor/image_{number + 1:04d}.jpg").unlink()

    with pytest.raises(DataError, match="anchor: 30 images, expected more than 30"):
        spoiled("caltech101", spoil)


def test_caltech_without_classes(tmp_path):
    (tmp_path / "caltech101/101_ObjectCategories").mkdir(parents=True)
    with pytest.raises(DataError, match="101_ObjectCategories: holds no class folders"):
        reading.read("caltech101", tmp_path)


def test_a_stray_file_in_caltech_is_not_an_image(spoiled):
    def spoil(files):
        (files / "caltech101/101_ObjectCategories/BACKGROUND_Google/tmp").write_bytes(b"")

    assert len(spoiled("caltech101", spoil).splits["train"]) == 150


def test_a_photo_no_higher_than_the_strip(spoiled):
    def spoil(files):
        image = files / "fgvc-aircraft-2013b/data/images/1000000.jpg"
        miniature.save_jpeg(image, np.zeros((20, 30, 3), np.uint8))

    source = spoiled("aircraft", spoil, strip="crop")
    with pytest.raises(DataError, match=r"1000000\.jpg: 20 pixels high, expected more than 20"):
        source.splits["train"][0].open()
