"""ImageNet-100 from a user's copy: classes, counts, what is refused; and its fingerprint."""

import numpy as np
import pytest
import reading
import skeletons

from clsp.config.catalog import dataset_info
from clsp.config.schema import DatasetSpec
from clsp.data import fingerprint as module
from clsp.data.fingerprint import fingerprint, read_fingerprint
from clsp.data.imagenet import images_in
from clsp.data.miniature import save_jpeg
from clsp.runtime.canonical import canonical_json
from clsp.runtime.errors import DataError

WNIDS = sorted(dataset_info("imagenet100").class_names)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    skeletons.imagenet100(root)
    return root


@pytest.fixture
def small(tmp_path):
    """Two training images and one for validation of each class; and another class."""
    root = tmp_path / "imagenet"
    for split, count in (("train", 2), ("val", 1)):
        for wnid in [*WNIDS, "n99999999"]:
            (root / split / wnid).mkdir(parents=True)
            for number in range(count):
                (root / split / wnid / f"{wnid}_{number}.JPEG").write_bytes(b"x" * (number + 1))
    return root


def read(root, **options):
    return reading.read("imagenet100", None, root=str(root), **options)


def test_counts_and_classes_are_the_published_ones(full):
    source = read(full)
    assert reading.counts_of(source) == (126689, 0, 5000)
    assert source.classes == tuple(WNIDS) == tuple(dataset_info("imagenet100").class_names)
    assert (source.classes[0], source.classes[-1]) == ("n01558993", "n13040303")


def test_images_are_named_below_root(small, caplog):
    source = read(small, counts="as_found")
    assert reading.counts_of(source) == (200, 0, 100)
    assert reading.names_of(source, "train")[2] == f"train/{WNIDS[1]}/{WNIDS[1]}_0.JPEG"
    assert reading.names_of(source, "test")[1] == f"val/{WNIDS[1]}/{WNIDS[1]}_0.JPEG"
    assert reading.labels_of(source, "test") == list(range(100))
    assert "train has 200 images, expected 126689" in caplog.text
    assert "val has 100 images, expected 5000" in caplog.text
    item = source.splits["test"][1]
    assert item.path == small / item.name
    save_jpeg(item.path, np.zeros((5, 7, 3), np.uint8))
    assert item.open().size == (7, 5)


def test_wrong_counts_are_refused(small):
    with pytest.raises(DataError, match=r"imagenet: train has 200 .*counts: as_found takes"):
        read(small)
    with pytest.raises(DataError, match=rf"val has other than 50 images of {WNIDS[0]} 1, "):
        read(small, counts="checked")


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere/train: no such folder; expected .*<wnid>"):
        read(tmp_path / "nowhere")


def test_a_class_folder_is_missing(small):
    (small / "train" / WNIDS[7]).rename(small / "train" / "away")
    with pytest.raises(DataError, match=rf"train: lacks the class folder {WNIDS[7]}$"):
        read(small, counts="as_found")
    (small / "train" / WNIDS[9]).rename(small / "train" / "away2")
    with pytest.raises(DataError, match=rf"lacks the class folder {WNIDS[7]} and 1 more"):
        read(small, counts="as_found")


def test_a_class_folder_is_empty_or_a_file(small):
    folder = small / "val" / WNIDS[3]
    (folder / f"{WNIDS[3]}_0.JPEG").unlink()
    (folder / ".DS_Store").touch()
    with pytest.raises(DataError, match=rf"{WNIDS[3]} has no images in val"):
        read(small, counts="as_found")
    (folder / ".DS_Store").unlink()
    folder.rmdir()
    folder.touch()
    with pytest.raises(DataError, match=rf"{WNIDS[3]}: expected a folder of images, found a file"):
        read(small, counts="as_found")


def test_unsorted_validation_images(small, tmp_path):
    (small / "val").rename(tmp_path / "away")
    (small / "val").mkdir()
    with pytest.raises(
        DataError, match=rf"val: holds none of the 100 class folders, as {WNIDS[0]}"
    ):
        read(small, counts="as_found")
    (small / "val" / "ILSVRC2012_val_00000001.JPEG").touch()
    with pytest.raises(DataError, match=r"val_00000001\.JPEG and no classes; sort the images into"):
        read(small, counts="as_found")


def spec_of(root):
    return DatasetSpec(kind="imagenet100", size=8, root=str(root), counts="as_found")


@pytest.fixture
def fresh(small, tmp_path, monkeypatch):
    """Gives the fingerprint as another process would see it."""
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache" / "fingerprints.json")

    def found(card=None):
        module.imagenet_digest.cache_clear()
        return fingerprint(spec_of(small), card)

    return found


def image_of(root):
    return root / "val" / WNIDS[99] / f"{WNIDS[99]}_0.JPEG"


def test_the_fingerprint_follows_names_and_sizes_below_the_hundred_folders(
    small, fresh, monkeypatch
):
    monkeypatch.setattr(module, "sha256_file", None)  # 15 GB are not read
    first = fresh()
    assert first == read_fingerprint(spec_of(small)) and len(first) == 64
    (small / "train" / "n99999999" / "new.JPEG").touch()
    (small / "train" / WNIDS[0] / ".hidden").touch()
    assert fresh() == first
    image = image_of(small)
    image.write_bytes(b"xx")
    changed = fresh()
    assert changed != first
    image.write_bytes(b"x")
    assert fresh() == first
    image.rename(image.with_name("other.JPEG"))
    assert fresh() not in (first, changed)


def test_only_changed_class_folders_are_listed_again(small, fresh, monkeypatch):
    listed = []
    monkeypatch.setattr(module, "images_in", lambda f: listed.append(f) or images_in(f))
    monkeypatch.setattr(module, "SETTLED", -60.0)
    first = fresh()
    assert len(listed) == 200
    assert fresh() == first and len(listed) == 200
    image_of(small).write_bytes(b"xx")  # in place: the folder does not tell
    assert fresh() == first != read_fingerprint(spec_of(small))
    del listed[:]
    (image_of(small).parent / "new.JPEG").touch()
    assert fresh() == read_fingerprint(spec_of(small)) != first
    assert listed[0] == image_of(small).parent and len(listed) == 201
    (image_of(small).parent / "new.JPEG").unlink()
    image_of(small).unlink()
    with pytest.raises(DataError, match="has no images in val"):
        fresh()


def test_entries_with_one_root_are_looked_at_once(small, fresh, monkeypatch):
    first = fresh()
    monkeypatch.setattr(module, "images_in", None)
    assert fingerprint(spec_of(small / "train" / ".."), None) == first


def test_without_the_folder_the_card_answers(small, fresh, tmp_path):
    card, first = tmp_path / "card.json", fresh()
    card.write_text(canonical_json({"fingerprint": first}))
    small.rename(tmp_path / "away")
    assert fresh(card) == first
    with pytest.raises(DataError, match="no such folder"):
        fresh()
