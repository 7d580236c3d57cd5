"""Batch norm where several processes share a batch (methods.md 3: per GPU, or synchronised)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clsp.runtime.team import Team

HALF = (torch.bfloat16, torch.float16)


class _Normalised(torch.autograd.Function):
    """Normalise this process's rows with the statistics of all processes' rows."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, team: Team
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the result, and mean and biased variance over the whole batch.

        Chan's formula for equally many rows everywhere: the mean of the variances plus the
        variance of the means.
        """
        inner = [0, *range(2, x.ndim)]
        own = x.float() if x.dtype in HALF else x
        variance, mean = torch.var_mean(own, dim=inner, correction=0)
        all_of = team.collect(torch.stack([mean, variance])[None])  # (P, 2, C)
        means, variances = all_of.unbind(1)
        mean = means.mean(dim=0)
        variance = variances.mean(dim=0) + means.var(dim=0, correction=0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.team = eps, team
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """The rows of all processes depend on this one's statistics: their share is added up."""
        x, weight, mean, variance = ctx.saved_tensors
        scale = (variance + ctx.eps).rsqrt()
        _, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, mean, scale, False, ctx.eps, [False, True, True]
        )  # to_weight = sum(gradient * (x - mean) * scale)
        shared = torch.stack([to_weight, to_bias])
        ctx.team.add_up([shared])
        per_value = shared * (weight * scale / (x.numel() // x.shape[1] * ctx.team.size))
        shape = [1, -1] + [1] * (x.ndim - 2)
        slope = (per_value[0] * scale).view(shape)
        offset = (per_value[1] - per_value[0] * scale * mean).view(shape)
        dx = gradient * (weight * scale).view(shape)  # float32, so that bf16 rounds the sum alone
        dx.sub_((x * slope).add_(offset))
        return dx.to(x.dtype), to_weight, to_bias, None, None


class SharedBatchNorm(_BatchNorm):
    """A batch-norm layer whose statistics in training are of all processes' rows.

    P processes with B / P rows each then compute what one does with B, up to rounding. torch's own
    SyncBatchNorm does so on GPUs alone.

    Args:
        layer: Whose parameters and buffers it takes over, under the same names.
        team: Of the processes; all have equally many rows.
    """

    def __init__(self, layer: _BatchNorm, team: Team) -> None:
        super().__init__(
            layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
        )
        held = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        for name, tensor in held:
            setattr(self, name, tensor)
        self.team = team
        self.train(layer.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Rows and channels, whatever follows."""
        if input.ndim < 2:
            raise ValueError(f"expected rows and channels, found shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """(B / P, C, ...) -> the same shape; running statistics move as torch moves them."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        given = (self.weight, self.bias)
        weight, bias = given if self.affine else self._plain(input)
        output, mean, variance = _Normalised.apply(input, weight, bias, self.eps, self.team)
        if self.track_running_stats:
            count = input.numel() // input.shape[1] * self.team.size
            self._move(mean, variance * (count / (count - 1)))
        return output

    def _plain(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias that change nothing."""
        like = self.running_mean if self.running_mean is not None else input
        ones = torch.ones(self.num_features, device=like.device, dtype=like.dtype)
        return ones, torch.zeros_like(ones)

    @torch.no_grad()
    def _move(self, mean: Tensor, unbiased: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        factor = self.momentum
        if factor is None:  # torch: a plain average over all batches
            factor = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor)


def share_statistics(network: nn.Module, team: Team, compiled: bool = False) -> None:
    """Replace every batch-norm layer within a network by one that all processes share.

    Args:
        network: Changed in place.
        team: Of the processes.
        compiled: Whether the network will be: torch.compile does not trace messages within a
            gradient, so the new layers stay as they are.
    """
    made: dict[int, SharedBatchNorm] = {}
    for parent in list(network.modules()):
        for name, layer in list(parent._modules.items()):  # named_children skips a second name
            if isinstance(layer, _BatchNorm):
                if id(layer) not in made:
                    made[id(layer)] = shared = SharedBatchNorm(layer, team)
                    if compiled:
                        shared.forward = torch.compiler.disable(shared.forward)
                setattr(parent, name, made[id(layer)])


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Buffers of all batch-norm layers within a network."""
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return [buffer for layer in layers for buffer in layer.buffers()]
