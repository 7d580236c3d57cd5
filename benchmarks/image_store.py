"""How fast are encoded images read? The Arrow store beside an image folder, in one run.

    python benchmarks/image_store.py [--images FOLDER] [--photos 2000] [--size 224] [--rounds 3]

FOLDER holds train/<class>/*.jpg, such as CIFAR-10 as JPEG; without it only drawn photos are read,
JPEGs of 500 x 375 pixels made from noise and gradients. Every reader decodes the same images at
their own resolution, in one shuffled order, with the same number of threads; rounds of the readers
take turns, and the median is reported. Then two random crops of each image, and two views, whose
colours the suite changes in batches on the device; against torchvision's classes, which work on one
image after another, in the same threads. All files lie in the page cache, so this measures
processors, not disks. Writes below benchmarks/results/ the table as JSON and markdown.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import PIL
import pyarrow
import torch
import torchvision
from PIL import Image
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_image

from clsp.config.recipe import ViewSpec
from clsp.data.decoders import each, threads
from clsp.data.encoded import EncodedImages, EncodedWriter, encode, open_encoded
from clsp.data.pictures import open_picture
from clsp.data.stores import Files, Request
from clsp.data.views import draw, recolour
from clsp.runtime.device import resolve
from clsp.runtime.keys import numpy_stream

HERE = Path(__file__).parent
BATCH = 256
JITTER = {"probability": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
VIEWS = ViewSpec.model_validate(
    {
        "crop_scale": (0.2, 1.0),
        "crop_ratio": (3 / 4, 4 / 3),
        "interpolation": "bicubic",
        "flip": 0.5,
        "jitter": JITTER,
        "grayscale": 0.2,
        "solarize": 0.0,
    }
)


def draw_photos(folder: Path, count: int) -> list[Path]:
    """JPEGs of 500 x 375 pixels that compress like photos do: gradients, edges and some grain."""
    stream, paths = numpy_stream(0, "benchmark photos"), []
    for number in range(count):
        coarse = stream.integers(0, 256, (12, 9, 3), dtype=np.uint8)
        fine = stream.normal(0, 7, (375, 500, 1))
        smooth = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        pixels = (np.asarray(smooth) + fine).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{number:05d}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def write_store(paths: list[Path], path: Path, size: int) -> tuple[EncodedImages, float]:
    """The Arrow file of some images, and the seconds that writing it took."""
    started = time.monotonic()
    with EncodedWriter(path) as writer:
        for file in paths:
            picture = open_picture(file)
            writer.add(encode(picture, file), picture.height, picture.width)
    return open_encoded(path, size, None), time.monotonic() - started


def anonymous_mib() -> float:
    """Memory of this process that no file stands behind, MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def timed(work: Callable[[np.ndarray], object], order: np.ndarray) -> tuple[float, float]:
    """Images per second over all batches of an order, and the largest growth in memory, MiB."""
    before, seen, done = anonymous_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(anonymous_mib() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    for start in range(0, len(order), BATCH):
        work(order[start : start + BATCH])
    seconds = time.monotonic() - started
    done.set()
    watcher.join()
    return len(order) / seconds, max(seen)


def decoders(store: EncodedImages, paths: list[Path]) -> dict[str, Callable[[np.ndarray], object]]:
    """Ways to decode a batch of images at their own resolution."""

    def from_store(row: int) -> object:
        return np.asarray(store.picture(row)).shape

    def from_folder(row: int) -> object:
        return np.asarray(open_picture(paths[row])).shape

    def by_torchvision(row: int) -> object:
        return decode_image(str(paths[row]), ImageReadMode.RGB).shape

    readers = {
        "Arrow store": from_store,
        "image folder, PIL": from_folder,
        "image folder, torchvision.io": by_torchvision,
    }
    return {
        name: lambda rows, read=read: list(each(read, rows.tolist()))
        for name, read in readers.items()
    }


def viewers(
    store: EncodedImages, paths: list[Path], size: int, device: torch.device
) -> dict[str, Callable[[np.ndarray], object]]:
    """Ways to make two crops of each image of a batch, with and without the colours that follow."""
    files = Files(store, device)
    strengths = [JITTER[name] for name in ("brightness", "contrast", "saturation", "hue")]
    bicubic = transforms.InterpolationMode.BICUBIC
    crop = [
        transforms.RandomResizedCrop(size, VIEWS.crop_scale, interpolation=bicubic),
        transforms.RandomHorizontalFlip(),
    ]
    colour = [
        transforms.RandomApply([transforms.ColorJitter(*strengths)], JITTER["probability"]),
        transforms.RandomGrayscale(VIEWS.grayscale),
    ]

    def ours(rows: np.ndarray, coloured: bool) -> object:
        index = torch.from_numpy(rows).to(device).repeat(2)
        view = torch.arange(2, device=device).repeat_interleave(len(rows))
        u = draw(index, 0, view, 0)
        (crops,) = files.begin([Request(index, None, u, VIEWS)])()
        views = recolour(crops, u, VIEWS) if coloured else crops
        return views[-1].sum().item()  # waits for the device

    def theirs(rows: np.ndarray, steps: list[Any]) -> object:
        pipeline = transforms.Compose([*steps, transforms.ToTensor()])

        def read(row: int) -> object:
            picture = open_picture(paths[row])
            return torch.stack([pipeline(picture) for _ in range(2)])

        return torch.stack(list(each(read, rows.tolist()))).to(device)

    return {
        "2 crops, Arrow store": partial(ours, coloured=False),
        "2 crops, image folder, torchvision": partial(theirs, steps=crop),
        f"2 views, Arrow store, colours on {device.type}": partial(ours, coloured=True),
        "2 views, image folder, torchvision": partial(theirs, steps=[*crop, *colour]),
    }


def measure(name: str, paths: list[Path], size: int, rounds: int) -> list[dict[str, Any]]:
    """One record per reader of a set of images."""
    with tempfile.TemporaryDirectory() as scratch:
        store, seconds = write_store(paths, Path(scratch) / "images.arrow", size)
        stored = (Path(scratch) / "images.arrow").stat().st_size
        order = numpy_stream(0, "benchmark order").permutation(len(paths))
        work = {**decoders(store, paths), **viewers(store, paths, size, resolve())}
        found: dict[str, list[tuple[float, float]]] = {reader: [] for reader in work}
        for number in range(rounds + 1):
            for reader, read in work.items():
                result = timed(read, order)
                if number:  # the first round fills the page cache
                    found[reader].append(result)
    about = {
        "images": name,
        "count": len(paths),
        "folder_bytes": sum(path.stat().st_size for path in paths),
        "store_bytes": stored,
        "write_seconds": seconds,
    }
    return [
        {
            **about,
            "reader": reader,
            "images_per_second": median(rate for rate, _ in results),
            "slowest": min(rate for rate, _ in results),
            "fastest": max(rate for rate, _ in results),
            "memory_mib": max(memory for _, memory in results),
        }
        for reader, results in found.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The records as a markdown table."""
    lines = ["| images | reader | images/s (least, most) | memory, MiB |", "|---|---|---:|---:|"]
    for row in rows:
        spread = f"{row['slowest']:.0f}, {row['fastest']:.0f}"
        lines.append(
            f"| {row['count']} x {row['images']} | {row['reader']} | "
            f"{row['images_per_second']:.0f} ({spread}) | {row['memory_mib']:.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder with train/<class>/*.jpg")
    parser.add_argument("--most", type=int, default=10_000, help="images of the folder to read")
    parser.add_argument("--photos", type=int, default=2000, help="number of drawn photos")
    parser.add_argument("--size", type=int, default=224, help="side of the photos' views, pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "image_store.json")
    arguments = parser.parse_args()
    torch.set_num_threads(threads())
    rows = []
    if arguments.images:
        paths = sorted(arguments.images.glob("train/*/*.jpg"))
        step = max(1, len(paths) // arguments.most)
        rows += measure("files of the folder", paths[::step], 32, arguments.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        paths = draw_photos(Path(scratch), arguments.photos)
        rows += measure("drawn photos", paths, arguments.size, arguments.rounds)
    about = (
        f"Images per second, median of {arguments.rounds} rounds, {threads()} threads, "
        f"{os.cpu_count()} processors of {platform.machine()}, device {resolve()}, "
        "files in the page cache"
    )
    versions = {m.__name__: m.__version__ for m in (torch, torchvision, PIL, pyarrow)}
    record = {"about": about, "versions": versions, "rows": rows}
    arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(f"{about}\n\n{table(rows)}\n", encoding="utf-8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
