"""BSIM (arXiv:2011.13356) on SimCLR: a mixture of two images resembles both (methods.md 2.14).

[inferred] Whether the CLSP paper's "MIT" is this work, and its exact loss and mixing distribution,
are not known to us; D17 in reports/spec/deviations.yaml says what was chosen.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from clsp.config.methods import HeadConfig, Temperature
from clsp.config.strict import Fraction, PositiveFloat
from clsp.models.encoder import Encoder
from clsp.models.heads import build_projection_head
from clsp.pretrain.contract import Batch, Moment, Step
from clsp.pretrain.forward import forward_positive, forward_views
from clsp.pretrain.losses.contrastive import mixture_contrast, nt_xent
from clsp.runtime.device import to_device
from clsp.runtime.rng import numpy_stream
from clsp.runtime.team import ALONE, Team


class Config(HeadConfig):
    """Options of BSIM; every one that SimCLR lacks is inferred."""

    temperature: Temperature
    mixing: Literal["cutmix", "mixup"]  # in pixel space
    beta: PositiveFloat  # shares are drawn from Beta(beta, beta)
    mixture_weight: Fraction  # of the mixtures' term; 1 - mixture_weight goes to SimCLR's


class Method(nn.Module):
    """SimCLR whose view 1 is also shown mixed with that of another image of the batch."""

    ALIGNED: ClassVar[str] = (
        "projections of the unmixed view 1 and of the positive; gradient on both sides"
    )
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.encoder = encoder
        self.head = build_projection_head(encoder.features, config.hidden, config.projection)
        self.moment = 0

    def before_step(self, moment: Moment) -> dict[str, float]:
        """Note the step, which keys the mixing."""
        self.moment = moment.step
        return {}

    def mix(self, images: Tensor, team: Team = ALONE) -> tuple[Tensor, Tensor, Tensor]:
        """Mix each image with another one of the batch.

        Args:
            images: This process's, (B / P, 3, H, W).
            team: Of the P processes; the other image may be another one's.

        Returns:
            Mixtures of this process's images (B / P, 3, H, W); of the whole batch the number of
            each second image (B,) and the share of the first (B,).
        """
        whole = team.collect(images)
        count, height, width = len(whole), *whole.shape[2:]
        draw = numpy_stream(self.seed, "mixture", self.moment)
        turn = int(draw.integers(1, max(count, 2)))  # nobody is mixed with itself
        partner = torch.arange(count, device=images.device).roll(-turn)
        share = torch.from_numpy(draw.beta(self.config.beta, self.config.beta, count)).float()
        place = torch.from_numpy(draw.random((2, count))).float()
        share, place = to_device(share, images.device), to_device(place, images.device)
        others = whole[team.part(partner)]  # (B / P, 3, H, W)
        if self.config.mixing == "mixup":
            weight = team.part(share).view(-1, 1, 1, 1)
            return weight * images + (1 - weight) * others, partner, share
        side = (1 - share).sqrt()  # of the box that the second image fills, as part of the image
        inside = [
            self._inside(size, side, centre)
            for size, centre in ((height, place[0]), (width, place[1]))
        ]
        box = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]  # (B, 1, H, W)
        kept = 1 - box.float().mean(dim=(1, 2, 3))  # the share that is really shown
        return torch.where(team.part(box), others, images), partner, kept

    @staticmethod
    def _inside(size: int, side: Tensor, centre: Tensor) -> Tensor:
        """Which of `size` pixels lie in the box along one axis, bool (B, size)."""
        middle, half = (centre * size)[:, None], (side * size / 2)[:, None]
        pixel = torch.arange(size, device=side.device) + 0.5
        return (pixel >= middle - half) & (pixel < middle + half)

    def step(self, batch: Batch) -> Step:
        """SimCLR on the plain views, and the mixtures of view 1 against view 2."""
        config = self.config
        mixed, partner, share = self.mix(batch.views[0], batch.team)
        network = nn.Sequential(self.encoder, self.head)
        if config.forward == "separate":
            z_1, z_2 = forward_views(network, batch.views, config.forward)
            z_mixed = forward_positive(network, mixed)
            z_3 = forward_positive(network, batch.positive)
        else:
            shown = [*batch.views, mixed]
            shown += [] if batch.positive is None else [batch.positive]
            z_1, z_2, z_mixed, *rest = forward_views(network, shown, config.forward)
            z_3 = rest[0] if rest else None
        z_1, z_2, z_mixed, z_3 = batch.gather(z_1, z_2, z_mixed, z_3)
        plain = nt_xent(z_1, z_2, config.temperature)
        spurious = mixture_contrast(z_mixed, z_2, partner, share, config.temperature)
        terms = {
            "info_nce": (1 - config.mixture_weight) * plain,
            "mixture": config.mixture_weight * spurious,
        }
        return Step(terms, z_1, z_3)
