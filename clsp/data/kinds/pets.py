"""Oxford-IIIT Pets: oxford-iiit-pet/annotations/{trainval,test}.txt and oxford-iiit-pet/images."""

from pathlib import Path

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Archive, DatasetInfo, Item, Source
from clsp.data.listing import file_item, read_lines
from clsp.runtime.errors import DataError

FOLDER = "oxford-iiit-pet"
LISTS = {"train": "trainval.txt", "test": "test.txt"}
HOSTS = ("robots.ox.ac.uk",)

INFO = DatasetInfo(
    title="Oxford-IIIT Pets",
    license="CC BY-SA 4.0",
    source="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    citation="O. Parkhi et al.: Cats and dogs. CVPR, 2012",
    metric="mean_per_class",
    archives=(
        Archive(
            url="https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
            size=791918971,
            sha256="67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
            md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
            folder=FOLDER,
            prefix="images/",
            hosts=HOSTS,
            checked="size, sha256: tensorflow-datasets; md5: torchvision",
        ),
        Archive(
            url="https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",
            size=19173078,
            sha256="52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
            md5="95a8c909bbe2e81eed6a22bccdf3f68f",
            folder=FOLDER,
            prefix="annotations/",
            hosts=HOSTS,
            checked="size, sha256: tensorflow-datasets; md5: torchvision",
        ),
    ),
    note="trainval is train; no official val.",
)


class Config(FetchedConfig):
    """No options of its own."""


def _read_list(folder: Path, list_name: str, names: dict[int, str]) -> list[Item]:
    """Images of one list; lines are `<breed>_<number> <class from 1> <species> <breed id>`."""
    path = folder / "annotations" / list_name
    items = []
    for line in read_lines(path):
        parts = line.split()
        if len(parts) != 4 or not parts[1].isdigit() or parts[1] == "0":
            raise DataError(f"{path}: expected name, class, species and breed, found {line!r}")
        label = int(parts[1]) - 1
        names.setdefault(label, parts[0].rsplit("_", 1)[0])
        items.append(file_item(folder / "images" / f"{parts[0]}.jpg", label))
    return items


def read(config: Config, files: Path) -> Source:
    """Read the lists below `files`.

    Raises:
        DataError: If a list is missing or malformed.
    """
    names: dict[int, str] = {}
    splits = {split: _read_list(files / FOLDER, name, names) for split, name in LISTS.items()}
    if sorted(names) != list(range(len(names))):
        raise DataError(f"{files / FOLDER / 'annotations'}: class numbers have gaps")
    classes = tuple(names[label].replace("_", " ") for label in range(len(names)))
    return Source(classes, {**splits, "val": []})


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archives' layout."""
    names = [
        "Abyssinian",
        "american_bulldog",
        "american_pit_bull_terrier",
        "basset_hound",
        "beagle",
    ]
    folder = files / FOLDER
    everything = []
    for split, list_name in LISTS.items():
        lines = []
        for label, number in miniature.examples(split, len(names)):
            name = f"{names[label]}_{number + 1}"
            species, breed = (1, 1) if label == 0 else (2, label)
            lines.append(f"{name} {label + 1} {species} {breed}")
            image = miniature.paint(motifs.faces, seed, "pets", label, number)
            miniature.save_jpeg(folder / "images" / f"{name}.jpg", image)
        miniature.write_lines(folder / "annotations" / list_name, sorted(lines))
        everything += lines
    header = ["#Image CLASS-ID SPECIES BREED ID"]
    miniature.write_lines(folder / "annotations" / "list.txt", header + sorted(everything))
