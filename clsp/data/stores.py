"""Where crops of training images come from: from pixels on the device, or from image files.

Both answer the same requests; the colour operations that follow are the same for both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from clsp.config.recipe import ViewSpec
from clsp.data.crops import Cuts, Cutting
from clsp.data.encoded import EncodedImages
from clsp.data.prepared import Images
from clsp.data.views import CROP, crop, draw_boxes, mirrored


@dataclass(frozen=True)
class Request:
    """Crops of training images, and perhaps of others, that pass one pipeline together.

    Attributes:
        rows: Numbers of training images, int64 (n,), on the device.
        others: Further images, uint8 (m, H, W, 3), on the device, or None (m = 0).
        u: Uniform numbers of all crops, (n + m, DRAWS), see clsp.data.views.draw.
        spec: The pipeline.
    """

    rows: Tensor
    others: Tensor | None
    u: Tensor
    spec: ViewSpec


Crops = Callable[[], list[Tensor]]  # of each request, float32 (n + m, 3, size, size) in [0, 1]


class Store(Protocol):
    """Training images, and crops of them.

    Attributes:
        ahead: Whether crops are made in the background once they are begun, so that it pays to
            begin those of the next batch early.
    """

    ahead: ClassVar[bool]

    def __len__(self) -> int:
        """Number of training images."""

    def begin(self, requests: list[Request]) -> Crops:
        """Begin the crops of a batch; calling the result waits for them."""


class Resident:
    """All pixels on the device, once for the whole run (0.15 GB for CIFAR)."""

    ahead: ClassVar[bool] = False

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        """Copy uint8 (N, H, W, 3) to the device."""
        self.images = torch.from_numpy(np.array(images)).to(device)

    def __len__(self) -> int:
        return len(self.images)

    def begin(self, requests: list[Request]) -> Crops:
        """Nothing happens before the crops are asked for."""
        return lambda: [self._crop(request) for request in requests]

    def _crop(self, request: Request) -> Tensor:
        shown, u, size = self.images[request.rows], request.u, self.images.shape[1]
        if request.others is None:
            return crop(shown, u, request.spec)
        if request.others.shape[1:] == shown.shape[1:]:
            return crop(torch.cat([shown, request.others]), u, request.spec)
        own = crop(shown, u[: len(shown)], request.spec)
        return torch.cat([own, crop(request.others, u[len(shown) :], request.spec, size)])


class Files:
    """Image files, decoded in the background by threads of the CPU."""

    ahead: ClassVar[bool] = True

    def __init__(self, images: EncodedImages, device: torch.device) -> None:
        """Keep the images where they are."""
        self.images, self.device = images, device

    def __len__(self) -> int:
        return len(self.images)

    def begin(self, requests: list[Request]) -> Crops:
        """Begin decoding; boxes are drawn in pixels of each image's own resolution."""
        cutting = Cutting(self.images, [self._cuts(r) for r in requests], self.images.size)
        return lambda: [
            self._finish(request, cut)
            for request, cut in zip(requests, cutting.wait(), strict=True)
        ]

    def _cuts(self, request: Request) -> Cuts:
        rows = request.rows.cpu().numpy()
        u = request.u[: len(rows)].cpu()
        height, width = (torch.from_numpy(side) for side in self.images.sides(rows))
        boxes = draw_boxes(u[:, CROP], (height, width), request.spec)
        sides = torch.stack([boxes.top, boxes.left, boxes.height, boxes.width], dim=1)
        turned = mirrored(u, request.spec)
        turned = torch.zeros(len(rows), dtype=torch.bool) if turned is None else turned
        return Cuts(rows, sides.numpy(), turned.numpy(), request.spec.interpolation)

    def _finish(self, request: Request, cut: np.ndarray) -> Tensor:
        own = torch.from_numpy(cut).to(self.device).permute(0, 3, 1, 2).to(torch.float32) / 255
        if request.others is None:
            return own
        u = request.u[len(own) :]
        others = crop(request.others, u, request.spec, self.images.size)
        others = others.clamp(0, 1).mul_(255).round_().div_(255)  # 8 bits, as PIL's beside them
        return torch.cat([own, others])


def open_store(images: Images, device: torch.device) -> Store:
    """The store of a training split."""
    kind = Files if isinstance(images, EncodedImages) else Resident
    return kind(images, device)
