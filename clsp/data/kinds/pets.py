"""Oxford-IIIT Pets: oxford-iiit-pet/annotations/{trainval,test}.txt and oxford-iiit-pet/images."""

from pathlib import Path
from typing import Any

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Source
from clsp.data.torchvision_reader import read_source

FOLDER = "oxford-iiit-pet"
LISTS = {"train": "trainval", "test": "test"}  # torchvision's names of the splits


class Config(FetchedConfig):
    """No options of its own."""


def read(config: Config, files: Path) -> Source:
    """Read the lists below `files`; lines are name, class, species and breed.

    Raises:
        DataError: If a list is missing or malformed.
    """
    from torchvision.datasets import OxfordIIITPet  # 3 s

    class Pets(OxfordIIITPet):
        """Gives paths, not images: of torchvision's classes this one takes no loader."""

        def __getitem__(self, row: int) -> tuple[Any, Any]:
            return self._images[row], self._labels[row]

    def build(split: str) -> Any:
        dataset = Pets(files, LISTS[split])
        names = {path.stem.rpartition("_")[0].replace("_", " ") for path in dataset._images}
        spelled = {name.title(): name for name in names}  # as the files have it
        dataset.classes = [spelled[name] for name in dataset.classes]
        return dataset

    folder = files / FOLDER
    lists = {split: [folder / "annotations" / f"{name}.txt"] for split, name in LISTS.items()}
    return read_source(build, lists, folder)


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
    for split, name_of_list in LISTS.items():
        lines = []
        for label, number in miniature.examples(split, len(names)):
            name = f"{names[label]}_{number + 1}"
            species, breed = (1, 1) if label == 0 else (2, label)
            lines.append(f"{name} {label + 1} {species} {breed}")
            image = miniature.paint(motifs.faces, seed, "pets", label, number)
            miniature.save_jpeg(folder / "images" / f"{name}.jpg", image)
        miniature.write_lines(folder / "annotations" / f"{name_of_list}.txt", sorted(lines))
        everything += lines
    header = ["#Image CLASS-ID SPECIES BREED ID"]
    miniature.write_lines(folder / "annotations" / "list.txt", header + sorted(everything))
