"""The encoded twin of a dataset that holds arrays: the same pixels, stored as PNG files."""

import json
import shutil
from pathlib import Path

from clsp.data.encoded import EncodedWriter, encode
from clsp.data.prepared import open_prepared
from clsp.runtime.manifest import Artefact, write_manifest


def as_encoded(dataset: Artefact, home: Path) -> Artefact:
    """Write the twin into a folder of the same name below `home`."""
    folder = home / dataset.folder.name
    folder.mkdir(parents=True)
    prepared = open_prepared(dataset)
    with EncodedWriter(folder / "images.arrow") as writer:
        for image in prepared.images:
            writer.add(encode(image, None), *image.shape[:2])
    card = {**prepared.card, "storage": "encoded", "resize": None}
    (folder / "card.json").write_text(json.dumps(card))
    shutil.copy(dataset.path("labels.npy"), folder / "labels.npy")
    files = {name: folder / name for name in ("images.arrow", "labels.npy", "card.json")}
    return write_manifest(folder / "manifest.json", files, [], dataset.predicate)
