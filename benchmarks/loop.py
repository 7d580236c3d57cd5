"""How many views per second does the whole training loop handle, beside other code? In one run.

    python benchmarks/loop.py [--images FOLDER] [--modes exact bf16] [--rounds 3] [--name loop]

Everything is included: data, augmentation, forward, backward, optimizer, log. CLSP-SimCLR with its
three views, and SimCLR with two, of 32 x 32 pixels; the encoder is a ResNet-18 on a GPU (batch
1024) and one of width 8 on a CPU (batch 256). Beside the suite in each of its modes:

    plain    torchvision's transforms on PIL images and a DataLoader with as many workers as there
             are processors, as most codes have it, the CLSP authors' among them
    lightly  the same with SimCLRTransform, SimCLRProjectionHead and NTXentLoss of lightly 1.6.0
             (two views); left out where it is not installed:
             pip install --no-deps lightly==1.6.0 lightning-utilities

All train the same encoder on the same images with the same recipe. Images lie in memory for all of
them: no file is decoded. Rounds take turns; each is one epoch, so workers leave nothing begun. The
wait for an epoch's first batch is measured too, and the ratio without it is noted.

FOLDER holds train/<class>/*, such as CIFAR-10 as JPEG; without it images are drawn. Writes
benchmarks/results/NAME.json and NAME.md. About 5 minutes on two CPU cores. Exit code 1 if, on a
CPU, the exact mode is less than twice as fast as the plain pipeline with three views.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from recording import compare, record, side_by_side, surroundings
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from workload import (
    DECAY,
    JITTER,
    MEAN,
    MODES,
    MOMENTUM,
    RATE,
    SCALES,
    SIZE,
    STD,
    TEMPERATURE,
    VIEWS,
    WEIGHT,
    Scale,
    drawn_images,
    prepared,
    read_images,
    run_spec,
    suites,
)

from clsp.config.schema import EncoderSpec
from clsp.models.encoder import Encoder
from clsp.runtime.device import resolve

STRENGTHS = [JITTER[name] for name in ("brightness", "contrast", "saturation", "hue")]
LEAST = 2.0  # the goal on a CPU


class Pictures(Dataset):
    """Anchors and, for a third view, one of their candidates at random; all in memory."""

    def __init__(
        self, images: np.ndarray, bank: np.ndarray | None, transform: Callable[[Any], Tensor]
    ) -> None:
        self.images, self.bank, self.transform = images, bank, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> list[Tensor]:
        anchor = Image.fromarray(self.images[row])
        views = [self.transform(anchor), self.transform(anchor)]
        if self.bank is not None:
            number = int(torch.randint(self.bank.shape[1], ()))
            views.append(self.transform(Image.fromarray(self.bank[row, number])))
        return views


def torchvision_view() -> Callable[[Any], Tensor]:
    """The recipe's view by torchvision's classes."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, VIEWS["crop_scale"]),
            transforms.RandomHorizontalFlip(VIEWS["flip"]),
            transforms.RandomApply([transforms.ColorJitter(*STRENGTHS)], JITTER["probability"]),
            transforms.RandomGrayscale(VIEWS["grayscale"]),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def plain_loss(z_1: Tensor, z_2: Tensor) -> Tensor:
    """NT-Xent, written out."""
    z = F.normalize(torch.cat([z_1, z_2]), dim=1)
    logits = z @ z.T / TEMPERATURE
    logits.fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z_1)))


class Loop:
    """A plain training loop over a DataLoader."""

    def __init__(
        self,
        dataset: Dataset,
        head: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        scale: Scale,
        device: torch.device,
    ) -> None:
        spec = EncoderSpec(architecture="resnet18", stem="small", width=scale.width)
        encoder = Encoder(spec)
        self.network = nn.Sequential(encoder, head(encoder.features)).to(device).train()
        self.optimizer = torch.optim.SGD(self.network.parameters(), RATE, MOMENTUM, 0, DECAY)
        self.loss, self.device = loss, device
        self.loader = DataLoader(
            dataset,
            scale.batch,
            shuffle=True,
            num_workers=torch.multiprocessing.cpu_count(),
            pin_memory=device.type == "cuda",
            drop_last=True,
            persistent_workers=True,
        )
        self.waits: list[float] = []  # for the first batch of each epoch, seconds

    def batches(self) -> Iterator[list[Tensor]]:
        """One epoch; notes how long its first batch takes."""
        started, first = time.perf_counter(), True
        for views in self.loader:
            if first:
                self.waits.append(time.perf_counter() - started)
                first = False
            yield [view.to(self.device, non_blocking=True) for view in views]

    def epoch(self) -> None:
        """All steps of an epoch, each loss logged at once."""
        resolve(deterministic=False)  # such loops leave the choice of kernels to torch
        for views in self.batches():
            z_1, z_2, *z_3 = self.network(torch.cat(views)).chunk(len(views))
            loss = self.loss(z_1, z_2)
            if z_3:
                loss = loss + WEIGHT * (2 - 2 * F.cosine_similarity(z_1, z_3[0])).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()


def plain_head(scale: Scale, features: int) -> nn.Module:
    """Projection head of the suite's SimCLR, written out."""
    return nn.Sequential(
        nn.Linear(features, scale.hidden),
        nn.ReLU(inplace=True),
        nn.Linear(scale.hidden, scale.projection),
    )


def plain(images: np.ndarray, bank: np.ndarray | None, scale: Scale, device: torch.device) -> Loop:
    """The plain loop of two views, or of three with a bank."""
    data = Pictures(images, bank, torchvision_view())
    return Loop(data, partial(plain_head, scale), plain_loss, scale, device)


def lightly(images: np.ndarray, scale: Scale, device: torch.device) -> Loop | None:
    """lightly's SimCLR; None where it is not installed."""
    try:
        parts = {
            name: importlib.import_module(f"lightly.{name}")
            for name in ("transforms.simclr_transform", "loss", "models.modules")
        }
    except ImportError:
        return None
    view = parts["transforms.simclr_transform"].SimCLRViewTransform(
        input_size=SIZE,
        cj_prob=JITTER["probability"],
        cj_strength=1.0,
        cj_bright=JITTER["brightness"],
        cj_contrast=JITTER["contrast"],
        cj_sat=JITTER["saturation"],
        cj_hue=JITTER["hue"],
        min_scale=VIEWS["crop_scale"][0],
        random_gray_scale=VIEWS["grayscale"],
        gaussian_blur=0.0,
        hf_prob=VIEWS["flip"],
        normalize={"mean": list(MEAN), "std": list(STD)},
    )

    def head(features: int) -> nn.Module:
        made = parts["models.modules"].SimCLRProjectionHead
        return made(features, scale.hidden, scale.projection)

    loss = parts["loss"].NTXentLoss(temperature=TEMPERATURE)
    return Loop(Pictures(images, None, view), head, loss, scale, device)


def measure(
    images: np.ndarray,
    views: int,
    modes: list[str],
    scale: Scale,
    device: torch.device,
    rounds: int,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows and notes of the step with two or three views."""
    wanted = {f"{views} views, suite, {mode}": run_spec(scale, views, mode) for mode in modes}
    steps, base = len(images) // scale.batch, f"{views} views, plain"
    with suites(wanted, prepared(images)) as (runs, bank):
        loops = {base: plain(images, bank if views == 3 else None, scale, device)}
        other = lightly(images, scale, device) if views == 2 else None
        if other is not None:
            loops[f"{views} views, lightly"] = other
        work: dict[str, Callable[[], object]] = {name: one.epoch for name, one in loops.items()}
        work |= {name: partial(one.steps, steps) for name, one in runs.items()}
        seconds = side_by_side(work, rounds, device)
    rows = compare(seconds, base, views * steps * scale.batch, "views")
    wait = median(loops[base].waits[1:])
    share = 1 - wait / seconds[base].median
    notes = [
        f"With {views} views the plain loop waits {wait:.2f} s for the first batch of an epoch of "
        f"{steps} steps. Without that, ratios to it would be multiplied by {share:.2f}."
    ]
    return rows, notes


def main() -> int:
    """Exit code 1 if the goal is missed on a CPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder with train/<class>/*")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="exact, and bf16 or fast")
    parser.add_argument("--views", nargs="+", type=int, choices=(2, 3), default=[3, 2])
    parser.add_argument("--steps", type=int, help="of an epoch; 12 on a CPU, 48 on a GPU")
    parser.add_argument("--width", type=int, help="of the encoder")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="loop")
    given = parser.parse_args()
    device = resolve()
    # Compiling takes minutes on a CPU and gains nothing there.
    modes = given.modes or ["exact", "fast" if device.type == "cuda" else "bf16"]
    usual = SCALES[device.type]
    scale = Scale(
        given.width or usual.width, usual.hidden, usual.projection, given.batch or usual.batch
    )
    count = (given.steps or (48 if device.type == "cuda" else 12)) * scale.batch
    images = read_images(given.images, count) if given.images else drawn_images(count)
    rows, notes = [], []
    for views in given.views:
        more = measure(images, views, modes, scale, device, given.rounds)
        rows += more[0]
        notes += more[1]
    about = {
        **surroundings(device, "torchvision", "pillow", "lightly"),
        "encoder": f"ResNet-18 of width {scale.width}, images of {SIZE} pixels",
        "batch": f"{scale.batch} anchors",
        "rounds": given.rounds,
    }
    print(record(given.name, about, rows, notes, settings=vars(scale)))
    reached = [row["ratio"] for row in rows if row["variant"] == "3 views, suite, exact"]
    return int(device.type == "cpu" and any(ratio < LEAST for ratio in reached))


if __name__ == "__main__":
    sys.exit(main())
