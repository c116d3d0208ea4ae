"""Batch norm over the joint batch of all processes, on any device.

torch's own ``SyncBatchNorm`` runs on GPUs only. With sums over all processes' elements ``i``, ``n`` to a channel::

    mu = sum_i x_i / n                var = sum_i x_i^2 / n - mu^2            xhat = (x - mu) / sqrt(var + eps)
    dx = w / sqrt(var + eps) * (dy - sum_i dy_i / n - xhat * sum_i dy_i xhat_i / n)

Both sums are all-reduced, so the gradient of x is that of the sum of all processes' losses. The gradients of weight and
bias stay this process's share, since the replicated model averages parameters' gradients itself.

Shapes: ``x [N, C, ...]``; sums ``[C]``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class JointBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm whose training statistics are those of the joint batch; same names in the state dict."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        joint = self.training and dist.is_initialized() and dist.get_world_size() > 1
        if not joint:
            return super().forward(input)
        self._check_input_dim(input)
        sums = _joint_sums(input)
        count = sums[-1]
        channels = input.shape[1]
        mean = sums[:channels] / count
        var = (sums[channels:-1] / count - mean.square()).clamp(min=0)
        self._update_running(mean, var, count)
        weight = self.weight if self.weight is not None else torch.ones(channels, device=input.device)
        bias = self.bias if self.bias is not None else torch.zeros(channels, device=input.device)
        return _Normalize.apply(input, weight, bias, mean.to(input.dtype), var.to(input.dtype), self.eps, float(count))  # type: ignore[no-any-return,no-untyped-call]

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = var * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


class _Normalize(torch.autograd.Function):
    """Normalization with given joint statistics, and its joint gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float, count: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.count = eps, count
        return nn.functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, weight, mean, var = ctx.saved_tensors
        over = [d for d in range(x.dim()) if d != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        rstd = (var + ctx.eps).rsqrt()
        xhat = (x - mean.view(shape)) * rstd.view(shape)
        own = torch.stack([dy.sum(over), (dy * xhat).sum(over)])
        joint = own.double()
        dist.all_reduce(joint)
        mean_dy, mean_dy_xhat = (joint / ctx.count).to(dy.dtype)
        dx = (dy - mean_dy.view(shape) - xhat * mean_dy_xhat.view(shape)) * (rstd * weight).view(shape)
        return dx, own[1], own[0], None, None, None, None


@torch.no_grad()
def _joint_sums(x: Tensor) -> Tensor:
    """Sum, sum of squares and count of every channel over all processes: ``[2 C + 1]``, float64."""
    over = [d for d in range(x.dim()) if d != 1]
    count = x.numel() // x.shape[1]
    var, mean = torch.var_mean(x, dim=over, correction=0)
    mean, var = mean.double(), var.double()
    own = torch.cat([mean * count, (var + mean.square()) * count, mean.new_tensor([count])])
    dist.all_reduce(own)
    return own


def convert_sync_bn(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model with every batch norm made joint; parameters and buffers stay the same objects."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return,no-untyped-call]
    if type(model) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return _joint(model)  # type: ignore[arg-type]
    for name, child in model.named_children():
        replaced = convert_sync_bn(child, device)
        if replaced is not child:
            setattr(model, name, replaced)
    return model


def _joint(norm: nn.modules.batchnorm._BatchNorm) -> JointBatchNorm:
    made = JointBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made._parameters.update(norm._parameters)
    made._buffers.update(norm._buffers)
    return made.train(norm.training)
