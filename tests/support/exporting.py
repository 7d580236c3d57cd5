"""What tests of exports share."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from clsp.models.encoder import Encoder

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.M | re.S)
PLACES = re.compile(r"/(?:home|Users|root|tmp|work)/|alice")


def lived(encoder: Encoder, seed: int) -> Encoder:
    """The encoder with weights and running statistics that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*encoder.parameters(), *encoder.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.01 * torch.rand(tensor.shape, generator=generator))
    return encoder.eval()


def blocks(card: str, language: str) -> list[str]:
    """The code of a card in one language."""
    return [code for kind, code in BLOCK.findall(card) if kind == language]


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Run in a folder."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def naming_places(folder: Path) -> list[str]:
    """Texts below a folder that name users or absolute paths."""
    found = []
    for path in sorted(folder.rglob("*")):
        binary = path.suffix in (".safetensors", ".png", ".npy", ".npz", ".html")
        if path.is_file() and not binary and (hit := PLACES.search(path.read_text())):
            found.append(f"{path.relative_to(folder)}: {hit[0]}")
    return found
