"""Draws another training image for each anchor, on the device and without waiting for it."""

import torch
from torch import Tensor

from clsp.runtime.rng import integers

ALONE = -1  # set number of an image that belongs to no set


class SetPartners:
    """Another member of the anchor's set, uniformly; an anchor alone in its set is its own partner.

    Images are sorted by set. The partner of a member of rank r in a set of s images is the one of
    rank (r + 1 + n) mod s, with n drawn from [0, s - 1): every other member once, and the anchor
    itself only if s = 1.
    """

    def __init__(self, sets: Tensor, key: int) -> None:
        """Sort the images by set.

        Args:
            sets: Set number of each training image, int64 (N,); ALONE for none.
            key: From `key_of`.
        """
        count, device = len(sets), sets.device
        _, number, sizes = torch.unique(sets, return_inverse=True, return_counts=True)
        starts = sizes.cumsum(0) - sizes
        self.key = key
        self.order = torch.argsort(number, stable=True)  # (N,), images by set
        position = torch.empty(count, dtype=torch.int64, device=device)
        position[self.order] = torch.arange(count, device=device)
        alone = sets == ALONE
        self.start = torch.where(alone, position, starts[number])  # (N,), of the set in `order`
        self.size = torch.where(alone, 1, sizes[number])  # (N,)
        self.rank = position - self.start  # (N,), within the set

    def choose(self, index: Tensor, epoch: int) -> Tensor:
        """Partners of a batch.

        Args:
            index: Numbers of the anchors, int64 (B,).
            epoch: From 0.

        Returns:
            Numbers of training images, int64 (B,).
        """
        size = self.size[index]
        drawn = integers(self.key, index, epoch, high=size - 1, count=1).squeeze(1)
        return self.order[self.start[index] + (self.rank[index] + 1 + drawn) % size]


class PairPartners:
    """One of the images paired with the anchor, uniformly; an anchor in no pair is its own."""

    def __init__(self, left: Tensor, right: Tensor, count: int, key: int) -> None:
        """Sort the pairs by anchor.

        Args:
            left: One image of each pair, int64 (P,).
            right: The other, int64 (P,); no pair is given twice.
            count: N, the number of training images.
            key: From `key_of`.
        """
        paired = torch.bincount(torch.cat([left, right]), minlength=count)  # (N,)
        alone = torch.nonzero(paired == 0).squeeze(1)
        anchors = torch.cat([left, right, alone])
        partners = torch.cat([right, left, alone])
        order = torch.argsort(anchors * count + partners)  # by anchor, then by partner
        self.key = key
        self.partners = partners[order]  # (2 P + anchors in no pair,)
        self.size = paired.clamp(min=1)  # (N,)
        self.start = self.size.cumsum(0) - self.size  # (N,), of the anchor in `partners`

    def choose(self, index: Tensor, epoch: int) -> Tensor:
        """Partners of a batch; arguments and result as of SetPartners.choose."""
        drawn = integers(self.key, index, epoch, high=self.size[index], count=1).squeeze(1)
        return self.partners[self.start[index] + drawn]
