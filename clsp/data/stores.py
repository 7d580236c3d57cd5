"""Where crops of training images come from: pixels on the device or in a file, or image files.

All answer the same requests; the colour operations that follow are the same for all.
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
from clsp.data.streaming import fits, put, read_ahead
from clsp.data.views import CROP, crop, draw_boxes, mirrored


@dataclass(frozen=True)
class Request:
    """Crops of training images, and perhaps of others, that pass one pipeline together.

    Attributes:
        rows: Numbers of training images, int64 (n,); on the CPU where the store has `on_host`.
        others: Further images, uint8 (m, H, W, 3), on the device; or what waits for them, or None
            (m = 0).
        u: Uniform numbers of all crops, (n + m, DRAWS), beside `rows`; see clsp.data.views.draw.
        spec: The pipeline.
    """

    rows: Tensor
    others: Tensor | Callable[[], Tensor] | None
    u: Tensor
    spec: ViewSpec

    def further(self) -> Tensor | None:
        """The images beside those of the store, waited for."""
        return self.others() if callable(self.others) else self.others


Crops = Callable[[], list[Tensor]]  # of each request, float32 (n + m, 3, size, size) in [0, 1]
Cropping = Callable[[Tensor, Tensor, ViewSpec, int | None], Tensor]  # views.crop, or compiled


class Store(Protocol):
    """Training images, and crops of them.

    Attributes:
        ahead: Whether something is done in the background once crops are begun, so that it pays to
            begin those of the next batch early.
        on_host: Whether the CPU has to know which rows are wanted, so that they are best drawn
            there: reading them back from a GPU would make it wait.
        cropping: How pixels on the device are cropped.
    """

    ahead: ClassVar[bool]
    on_host: ClassVar[bool]
    cropping: Cropping

    def __len__(self) -> int:
        """Number of training images."""

    def begin(self, requests: list[Request]) -> Crops:
        """Begin the crops of a batch; calling the result waits for them."""


def _cropped(shown: Tensor, request: Request, size: int, cropping: Cropping) -> Tensor:
    """Crops of a request's images, of which those of the store are given."""
    u, others = put(request.u, shown.device), request.further()
    if others is None:
        return cropping(shown, u, request.spec, None)
    if others.shape[1:] == shown.shape[1:]:
        return cropping(torch.cat([shown, others]), u, request.spec, None)
    own = cropping(shown, u[: len(shown)], request.spec, None)
    return torch.cat([own, cropping(others, u[len(shown) :], request.spec, size)])


class Resident:
    """All pixels on the device, once for the whole run (0.15 GB for CIFAR)."""

    ahead: ClassVar[bool] = False
    on_host: ClassVar[bool] = False

    def __init__(self, images: np.ndarray, device: torch.device, cropping: Cropping = crop) -> None:
        """Copy uint8 (N, H, W, 3) to the device."""
        self.images, self.cropping = torch.from_numpy(np.array(images)).to(device), cropping

    def __len__(self) -> int:
        return len(self.images)

    def begin(self, requests: list[Request]) -> Crops:
        """Nothing happens before the crops are asked for."""
        return lambda: [self._crop(request) for request in requests]

    def _crop(self, request: Request) -> Tensor:
        shown = self.images[put(request.rows, self.images.device)]
        return _cropped(shown, request, self.images.shape[1], self.cropping)


class Streamed:
    """Pixels in a mapped file that is too large for the device; a batch of them at a time."""

    ahead: ClassVar[bool] = True
    on_host: ClassVar[bool] = True

    def __init__(self, images: np.ndarray, device: torch.device, cropping: Cropping = crop) -> None:
        """Keep the mapped uint8 (N, H, W, 3) where they are."""
        self.images, self.device, self.cropping = images, device, cropping

    def __len__(self) -> int:
        return len(self.images)

    def begin(self, requests: list[Request]) -> Crops:
        """Begin to read every image once, in the order of the file, however often it is shown."""
        rows = np.concatenate([request.rows.cpu().numpy() for request in requests])
        distinct, places = np.unique(rows, return_inverse=True)
        pixels = read_ahead(self.images, distinct, self.device)
        parts = torch.from_numpy(places).split([len(request.rows) for request in requests])

        def finish() -> list[Tensor]:
            read, size = pixels(), self.images.shape[1]
            return [
                _cropped(read[put(part, self.device)], request, size, self.cropping)
                for part, request in zip(parts, requests, strict=True)
            ]

        return finish


class Files:
    """Image files, decoded in the background by threads of the CPU."""

    ahead: ClassVar[bool] = True
    on_host: ClassVar[bool] = True

    def __init__(
        self, images: EncodedImages, device: torch.device, cropping: Cropping = crop
    ) -> None:
        """Keep the images where they are."""
        self.images, self.device, self.cropping = images, device, cropping

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
        own = put(torch.from_numpy(cut), self.device).permute(0, 3, 1, 2).to(torch.float32) / 255
        others = request.further()
        if others is None:
            return own
        u = put(request.u[len(own) :], self.device)
        others = self.cropping(others, u, request.spec, self.images.size)
        others = others.mul(255).round_().div_(255)  # 8 bits, as PIL's beside them
        return torch.cat([own, others])


def open_store(
    images: Images, device: torch.device, cropping: Cropping = crop, stay: bool = False
) -> Store:
    """The store of a training split: files as they are; pixels on the device if they fit there.

    Args:
        images: Of the split.
        device: Where crops are wanted.
        cropping: How pixels on the device are cropped.
        stay: Leave pixels where they are, too.
    """
    if isinstance(images, EncodedImages):
        return Files(images, device, cropping)
    kind = Resident if fits(images.nbytes, device) and not stay else Streamed
    return kind(images, device, cropping)
