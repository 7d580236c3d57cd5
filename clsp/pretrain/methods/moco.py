"""MoCo v2+: symmetric, with two queues, as the CLSP authors train it (methods.md 2.1, 2.3)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clsp.config.strict import Fraction, PositiveFloat, PositiveInt, Strict
from clsp.models.ema import cosine_decay, frozen_copy, update_average
from clsp.models.encoder import Encoder
from clsp.models.heads import build_projection_head
from clsp.pretrain.contract import Step
from clsp.pretrain.forward import forward_as_four_gpus
from clsp.pretrain.losses import info_nce
from clsp.runtime.rng import torch_stream


class Config(Strict):
    """Options of MoCo. `forward` decides the batch-norm statistics: clsp/pretrain/forward.py."""

    temperature: PositiveFloat
    hidden: PositiveInt
    projection: PositiveInt
    forward: Literal["separate", "four_gpu"]
    queue: PositiveInt  # K, past keys per view
    momentum_start: Fraction
    momentum_end: Fraction

    def check_batch(self, batch_size: int) -> None:
        """A queue is filled in whole batches, so that a key never wraps around its end."""
        if self.queue % batch_size:
            raise ValueError(f"queue {self.queue} is not a multiple of batch_size {batch_size}")


class Method(nn.Module):
    """Online network, its moving average and two queues of past keys. No shuffle-BN."""

    def __init__(self, encoder: Encoder, config: Config, seed: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = build_projection_head(encoder.features, config.hidden, config.projection)
        self.average = frozen_copy(nn.Sequential(self.encoder, self.head))
        drawn = torch.randn(
            2, config.projection, config.queue, generator=torch_stream(seed, "queue")
        )
        self.register_buffer("queue", F.normalize(drawn, dim=1))  # (2, D, K): past k_1, past k_2
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("tau", torch.zeros((), dtype=torch.float64))

    def before_step(self, step: int, steps: int) -> dict[str, float]:
        """Move the average first, with the decay set at the end of the step before.

        The authors compute tau(s) after step s and use it in step s + 1; in step 0 both networks
        are equal, so that update changes nothing.
        """
        config = self.config
        decay = cosine_decay(config.momentum_start, config.momentum_end, max(step - 1, 0), steps)
        update_average(self.average, nn.Sequential(self.encoder, self.head), decay)
        self.tau.fill_(decay)
        self.updates += 1
        return {"momentum": decay}

    def counters(self) -> dict[str, int]:
        """Updates of the moving average, for the manifest."""
        return {"ema_updates": int(self.updates)}

    def _embed(self, network: nn.Module, images: Tensor) -> Tensor:
        four = self.config.forward == "four_gpu"
        return forward_as_four_gpus(network, images) if four else network(images)

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """Overwrite the oldest keys with the newest; keys (2, B, D)."""
        slots = (self.pointer + torch.arange(keys.shape[1], device=keys.device)) % self.config.queue
        self.queue[:, :, slots] = keys.mT
        self.pointer.copy_((self.pointer + keys.shape[1]) % self.config.queue)

    def step(self, views: list[Tensor], positive: Tensor | None) -> Step:
        """Contrast each view with the other's key; the positive is seen by the online side only."""
        online = nn.Sequential(self.encoder, self.head)
        q_1, q_2 = (self._embed(online, view) for view in views)
        q_3 = None if positive is None else self._embed(online, positive)
        with torch.no_grad():
            k_1, k_2 = (F.normalize(self._embed(self.average, view), dim=1) for view in views)
        past = self.queue.clone()  # backward needs it as it was
        temperature = self.config.temperature
        first = info_nce(q_1, k_2, past[1], temperature)
        second = info_nce(q_2, k_1, past[0], temperature)
        self._enqueue(torch.stack([k_1, k_2]))
        return Step({"info_nce": (first + second) / 2}, q_1, q_3)
