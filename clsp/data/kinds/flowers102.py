"""Flowers-102: flowers-102/setid.mat, imagelabels.mat and jpg/image_<number>.jpg."""

from pathlib import Path

import numpy as np

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Archive, DatasetInfo, Source
from clsp.data.listing import file_item, read_mat
from clsp.runtime.errors import DataError

FOLDER = "flowers-102"
# The official assignment: test is larger than train. Some papers swap the two; we do not.
IDS = {"train": "trnid", "val": "valid", "test": "tstid"}
URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
HOSTS = ("robots.ox.ac.uk",)
CHECKED = "size, sha256: tensorflow-datasets; md5: torchvision"
# The archives hold numbers only; the names are those of the publisher's page.
NAMES = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea",
    "english marigold", "tiger lily", "moon orchid", "bird of paradise", "monkshood",
    "globe thistle", "snapdragon", "colt's foot", "king protea", "spear thistle", "yellow iris",
    "globe-flower", "purple coneflower", "peruvian lily", "balloon flower", "giant white arum lily",
    "fire lily", "pincushion flower", "fritillary", "red ginger", "grape hyacinth", "corn poppy",
    "prince of wales feathers", "stemless gentian", "artichoke", "sweet william", "carnation",
    "garden phlox", "love in the mist", "mexican aster", "alpine sea holly", "ruby-lipped cattleya",
    "cape flower", "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil",
    "sword lily", "poinsettia", "bolero deep blue", "wallflower", "marigold", "buttercup",
    "oxeye daisy", "common dandelion", "petunia", "wild pansy", "primula", "sunflower",
    "pelargonium", "bishop of llandaff", "gaura", "geranium", "orange dahlia",
    "pink-yellow dahlia?", "cautleya spicata", "japanese anemone", "black-eyed susan", "silverbush",
    "californian poppy", "osteospermum", "spring crocus", "bearded iris", "windflower",
    "tree poppy", "gazania", "azalea", "water lily", "rose", "thorn apple", "morning glory",
    "passion flower", "lotus", "toad lily", "anthurium", "frangipani", "clematis", "hibiscus",
    "columbine", "desert-rose", "tree mallow", "magnolia", "cyclamen", "watercress", "canna lily",
    "hippeastrum", "bee balm", "ball moss", "foxglove", "bougainvillea", "camellia", "mallow",
    "mexican petunia", "bromelia", "blanket flower", "trumpet creeper", "blackberry lily",
)  # fmt: skip

INFO = DatasetInfo(
    title="Oxford Flowers-102",
    license="not stated by its publisher",
    source=f"{URL}/",
    citation="M.-E. Nilsback, A. Zisserman: Automated flower classification. ICVGIP, 2008",
    metric="mean_per_class",
    archives=(
        Archive(
            url=f"{URL}/102flowers.tgz",
            size=344862509,
            sha256="2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
            md5="52808999861908f626f3c1f4e79d11fa",
            folder=FOLDER,
            prefix="jpg/",
            hosts=HOSTS,
            checked=CHECKED,
        ),
        Archive(
            url=f"{URL}/imagelabels.mat",
            size=502,
            sha256="4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
            md5="e0620be6f572b9609742df49c70aed4d",
            folder=FOLDER,
            prefix="",
            hosts=HOSTS,
            checked=CHECKED,
        ),
        Archive(
            url=f"{URL}/setid.mat",
            size=14989,
            sha256="46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
            md5="a5357ecc9cb78c4bef273ce3793fc85c",
            folder=FOLDER,
            prefix="",
            hosts=HOSTS,
            checked=CHECKED,
        ),
    ),
    note="Official splits: train is trnid, val is valid, test is tstid, the largest of them.",
)


class Config(FetchedConfig):
    """No options of its own."""


def read(config: Config, files: Path) -> Source:
    """Read the mat files below `files`.

    Raises:
        DataError: If one is missing or malformed.
    """
    folder = files / FOLDER
    labels = read_mat(folder / "imagelabels.mat", ["labels"])["labels"]  # classes from 1
    ids = read_mat(folder / "setid.mat", IDS.values())  # images from 1
    listed = np.concatenate([ids[key] for key in IDS.values()])
    if listed.min() < 1 or listed.max() > len(labels):
        raise DataError(f"{folder / 'setid.mat'}: names images outside 1..{len(labels)}")
    if labels.min() < 1 or labels.max() > len(NAMES):
        raise DataError(f"{folder / 'imagelabels.mat'}: has classes outside 1..{len(NAMES)}")
    splits = {
        split: [
            file_item(folder / "jpg" / f"image_{number:05d}.jpg", int(labels[number - 1]) - 1)
            for number in ids[key].tolist()
        ]
        for split, key in IDS.items()
    }
    return Source(NAMES[: labels.max()], splits)


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archives' layout."""
    folder, classes = files / FOLDER, 5
    labels: list[int] = []
    ids: dict[str, list[int]] = {}
    for split, key in IDS.items():
        ids[key] = []
        for label, number in miniature.examples(split, classes):
            labels.append(label + 1)
            ids[key].append(len(labels))
            image = miniature.paint(motifs.flowers, seed, "flowers102", label, number)
            miniature.save_jpeg(folder / "jpg" / f"image_{len(labels):05d}.jpg", image)
    miniature.save_mat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    numbers = {key: np.array([values], np.uint16) for key, values in ids.items()}
    miniature.save_mat(folder / "setid.mat", numbers)
