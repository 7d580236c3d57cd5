"""Full-size stand-ins: every list with its published number of lines, and images without content.

Real names of classes come from the catalogue; which image is in which split is made up.
"""

import json

import numpy as np

from clsp.config.catalog import dataset_info
from clsp.data.kinds import caltech101, cars
from clsp.data.miniature import save_mat, write_lines

# Images of each class of Caltech-101, sorted by name: those of the two lists that
# github.com/linusericsson/ssl-transfer publishes, numbered from 1 without gaps.
CALTECH = (
    "467 435 435 200 798 55 800 42 42 47 54 46 33 128 98 43 85 91 50 43 123 47 59 62 107 47 69 73 70 "
    "50 51 57 67 52 65 68 75 64 53 64 85 67 67 45 34 34 51 99 100 42 54 88 80 31 64 86 114 61 81 78 "
    "41 66 43 40 87 32 76 55 35 39 47 38 45 53 34 57 82 59 49 40 63 39 84 57 35 64 45 86 59 64 35 85 "
    "49 86 75 239 37 59 34 56 39 60"
)


def names(kind):
    return dataset_info(kind).class_names


def sparse(path, size):
    """A file of zeros that takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as stream:
        stream.truncate(size)


def deal(count, classes):
    """Labels of `count` images, classes taking turns."""
    return [row % classes for row in range(count)]


def cifar10(files):
    folder = files / "cifar-10-batches-bin"
    write_lines(folder / "batches.meta.txt", list(names("cifar10")))
    for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        sparse(folder / name, 10000 * 3073)


def cifar100(files):
    folder = files / "cifar-100-binary"
    write_lines(folder / "fine_label_names.txt", list(names("cifar100")))
    sparse(folder / "train.bin", 50000 * 3074)
    sparse(folder / "test.bin", 10000 * 3074)


def stl10(files):
    folder = files / "stl10_binary"
    write_lines(folder / "class_names.txt", list(names("stl10")))
    for split, count in (("train", 5000), ("test", 8000)):
        sparse(folder / f"{split}_X.bin", count * 27648)
        (folder / f"{split}_y.bin").write_bytes(bytes(label + 1 for label in deal(count, 10)))
    sparse(folder / "unlabeled_X.bin", 100000 * 27648)
    folds = [" ".join(str((37 * fold + n) % 5000) for n in range(1000)) for fold in range(10)]
    write_lines(folder / "fold_indices.txt", folds)


def dtd(files):
    (files / "dtd" / "images").mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        lines = [f"{n}/{n}_{40 * number + k:04d}.jpg" for n in names("dtd") for k in range(40)]
        for partition in range(1, 11):
            write_lines(files / "dtd" / "labels" / f"{split}{partition}.txt", lines)


def flowers102(files):
    folder, counts = files / "flowers-102", {"trnid": 1020, "valid": 1020, "tstid": 6149}
    (folder / "jpg").mkdir(parents=True)
    labels, ids = [], {}
    for key, count in counts.items():
        ids[key] = np.arange(len(labels) + 1, len(labels) + count + 1, dtype=np.uint16)[None]
        labels += [label + 1 for label in deal(count, 102)]
    save_mat(folder / "setid.mat", ids)
    save_mat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})


def food101(files):
    (files / "food-101" / "images").mkdir(parents=True)
    for split, start, stop in (("train", 0, 750), ("test", 750, 1000)):
        listed = {n: [f"{n}/{k}" for k in range(start, stop)] for n in names("food101")}
        write_lines(files / "food-101" / "meta" / f"{split}.json", [json.dumps(listed)])


def pets(files):
    folder = files / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    start = 0
    for split, count in (("trainval", 3680), ("test", 3669)):
        stems = [name.replace(" ", "_") for name in names("pets")]
        rows = enumerate(deal(count, 37), start)
        lines = [f"{stems[label]}_{row} {label + 1} 1 1" for row, label in rows]
        write_lines(folder / "annotations" / f"{split}.txt", lines)
        start += count


def aircraft(files):
    data = files / "fgvc-aircraft-2013b" / "data"
    classes = {
        "variant": names("aircraft"),
        "family": [f"Family {n}" for n in range(70)],
        "manufacturer": [f"Maker {n}" for n in range(30)],
    }
    for level, listed in classes.items():
        lists = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}
        write_lines(data / f"{lists[level]}.txt", list(listed))
        start = 0
        for split, count in (("train", 3334), ("val", 3333), ("test", 3333)):
            rows = enumerate(deal(count, len(listed)), start)
            lines = [f"{row:07d} {listed[label]}" for row, label in rows]
            write_lines(data / f"images_{level}_{split}.txt", lines)
            start += count


def write_cars(files, counts):
    folder = files / cars.FOLDER
    (folder / "devkit").mkdir(parents=True)
    for split, listed in cars.LABELS.items():
        (folder / f"cars_{split}").mkdir()
        labels = enumerate(deal(counts[split], 196), start=1)
        rows = [(1, 1, 9, 9, label + 1, f"{row:05d}.jpg") for row, label in labels]
        annotations = np.array([rows], dtype=[*cars.FIELDS, ("fname", "O")])
        save_mat(folder / listed, {"annotations": annotations})
    save_mat(folder / cars.NAMES, {"class_names": np.array([names("cars")], dtype=object)})


def caltech(files):
    for name, count in zip(names("caltech101"), map(int, CALTECH.split()), strict=True):
        folder = files / caltech101.FOLDER / caltech101.CATEGORIES / name
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            (folder / f"image_{number:04d}.jpg").touch()


def sun397(files):
    folder = files / "SUN397"
    classes = [f"/{name[0]}/{name}" for name in names("sun397")]
    write_lines(folder / "ClassName.txt", classes)
    for partition in range(1, 11):
        for number, listed in enumerate(("Training", "Testing")):
            lines = [
                f"{n}/sun_{50 * number + k + partition}.jpg" for n in classes for k in range(50)
            ]
            write_lines(folder / f"{listed}_{partition:02d}.txt", lines)


def voc2007(files):
    lists, start = files / "VOCdevkit/VOC2007/ImageSets/Main", 1
    for split, count in (("train", 2501), ("val", 2510), ("test", 4952)):
        images = [f"{row:06d}" for row in range(start, start + count)]
        start += count
        write_lines(lists / f"{split}.txt", images)
        for label, name in enumerate(names("voc2007")):
            flags = [1 if row % 20 == label else (row + label) % 3 // 2 - 1 for row in range(count)]
            lines = [f"{image} {flag:2d}" for image, flag in zip(images, flags, strict=True)]
            write_lines(lists / f"{name}_{split}.txt", lines)


def imagenet100(root):
    """Class folders are links to a few shared ones: 132 thousand files would take a while."""
    sizes = {"train": 1267, "last": 126689 - 99 * 1267, "val": 50}
    for name, size in sizes.items():
        folder = root / "shared" / name
        folder.mkdir(parents=True)
        for number in range(size):
            (folder / f"{number:05d}.JPEG").touch()
    classes = names("imagenet100")
    for split in ("train", "val"):
        (root / split).mkdir()
        for wnid in classes:
            shared = "last" if (split, wnid) == ("train", classes[-1]) else split
            (root / split / wnid).symlink_to(root / "shared" / shared)
        (root / split / "n00000000").mkdir()  # a class that is not among the hundred


BUILDERS = {
    "aircraft": aircraft,
    "caltech101": caltech,
    "cars": lambda files: write_cars(files, {"train": 8144, "test": 8041}),
    "cifar10": cifar10,
    "cifar100": cifar100,
    "dtd": dtd,
    "flowers102": flowers102,
    "food101": food101,
    "pets": pets,
    "stl10": stl10,
    "sun397": sun397,
    "voc2007": voc2007,
}
