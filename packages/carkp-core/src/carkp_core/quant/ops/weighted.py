"""What convolution and transposed convolution share: weights, bias, batch norm, rescale per channel.

Legend: ``N`` batch, ``I O`` channels, ``kh kw`` kernel; weights OIHW, transposed IOHW; ``rows`` [O, count].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from carkp_core.quant import exact
from carkp_core.quant.constants import WEIGHT_LIMIT, WeightedConstants, raised_scale, weighted_constants
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import Layer, float_input, origin_of
from carkp_core.quant.rescale import Factor
from carkp_core.quant.step_gradient import with_row_steps

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder

Tlbr = tuple[int, int, int, int]
Hw = tuple[int, int]
NO_PADDING: Tlbr = (0, 0, 0, 0)


class Weighted(Layer):
    """What convolution and transposed convolution share."""

    takes_bounds = True

    def __init__(self, weight: Tensor, bias: Tensor | None, groups: int) -> None:
        super().__init__()
        self.origin = origin_of(weight, bias)
        self.weight = nn.Parameter(weight.detach().clone().float())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone().float())
        self.groups = groups
        #: Batch norm that QAT keeps beside the weights (``with_bn``); evaluation folds its running statistics.
        self.bn: nn.BatchNorm2d | None = None
        self.reverse_fold = False
        #: Mean and deviation [O] that a batch norm folded for good gave the outputs before any clamp; not in the state.
        self.normal: tuple[Tensor, Tensor] | None = None
        #: Learned scales [O] of the weights as they are stored here; 0 where they were never set.
        self.weight_scale: nn.Parameter | None = None

    @property
    def out_channels(self) -> int:
        """O."""
        raise NotImplementedError

    def rows(self, weight: Tensor) -> Tensor:
        """Weights as [O, count]."""
        raise NotImplementedError

    def unrows(self, rows: Tensor) -> Tensor:
        """The inverse of ``rows``."""
        raise NotImplementedError

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The sum of products."""
        raise NotImplementedError

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with the batch norm's running statistics folded in."""
        if self.bn is None:
            return self.weight, self.bias
        return fold(self, self.weight, self.bias, self.bn)

    def float_forward(self, *inputs: Tensor) -> Tensor:
        weight, bias = self.folded()
        return self.bounds.apply(self.convolve(inputs[0], weight, bias))

    def constants(self, x: QTensor, residual: QTensor | None = None) -> WeightedConstants:
        """The integers, for these inputs; remembered until a tensor changes."""
        scale_r = None if residual is None else residual.scale
        return self.integers(x.scale, x.dtype, scale_r)

    def integers(self, scale_x: float, dtype_x: str, scale_r: float | None) -> WeightedConstants:
        """The same, for an input of this step and type and a residual of this step."""

        def make() -> WeightedConstants:
            with torch.no_grad():
                weight, bias = self.folded()
                scale_y = self.wanted_scale()
                if scale_r is not None:
                    scale_y = raised_scale(scale_y, [scale_r], in_add=True)
                rows, in_add, name = self.rows(weight), scale_r is not None, str(self.source) or self.label
                learned = self.folded_weight_scale()
                return weighted_constants(rows, bias, scale_x, dtype_x, scale_y, in_add, name, learned)

        return self.cached((scale_x, dtype_x, scale_r), make)  # type: ignore[no-any-return]

    def accumulate(self, x: QTensor, c: WeightedConstants) -> tuple[Tensor, Tensor]:
        """The sum of products (float32 where that is exact, else float64) and the bias, with gradients."""
        weight, bias = self.folded()
        whole = self.whole_weights(weight, c)
        offset = c.bias
        if bias is not None:
            offset = exact.through(bias, offset, 1.0 / c.scale_acc)
        if c.products_bound < exact.FLOAT32_BOUND:
            return self.convolve(x.values, whole, None), offset
        return self.convolve(x.values.double(), whole.double(), None), offset

    def whole_weights(self, weight: Tensor, c: WeightedConstants) -> Tensor:
        """The integer weights, with gradients to the float ones and to their learned scales."""
        whole, scale_w = self.unrows(c.weight), self.unrows_scale(c.scale_w)
        learned = self.folded_weight_scale()
        if learned is None:
            return exact.through(weight, whole, 1.0 / scale_w)
        unrounded = self.rows(weight.detach()) / c.scale_w.float()[:, None]
        inside = self.unrows(unrounded.abs() <= WEIGHT_LIMIT + 0.5)
        rows = self.rows(exact.through(weight, whole, inside / scale_w))
        return self.unrows(with_row_steps(rows, unrounded, learned, WEIGHT_LIMIT))

    def learn_weight_scale(self) -> None:
        """Make the weights' scales a parameter, which the weights themselves set at the first step of training."""
        if self.weight_scale is None:
            self.weight_scale = nn.Parameter(torch.zeros(self.out_channels, device=self.weight.device))

    @torch.no_grad()
    def find_weight_scale(self) -> None:
        """Set learned scales that were never set: absmax / 127."""
        if self.weight_scale is not None and bool((self.weight_scale == 0).any()):
            own = self.rows(self.weight).abs().amax(dim=1) / WEIGHT_LIMIT
            self.weight_scale.copy_(torch.where(self.weight_scale == 0, own, self.weight_scale))

    def folded_weight_scale(self) -> Tensor | None:
        """The learned scales of the weights with batch norm folded in; None where scales aren't learned."""
        if self.weight_scale is None or self.bn is None:
            return self.weight_scale
        return self.weight_scale * batch_norm_factor(self.bn).detach().abs()

    def train_with_batch_norm(self, x: QTensor, residual: QTensor | None, sign: float) -> QTensor:
        """QAT with the batch's own statistics: quantized weights, float batch norm, quantized output.

        With ``reverse_fold`` the weights are quantized as evaluation will have them, scaled by the running statistics,
        and the sum is scaled back; otherwise as they are. Per channel the two differ in roundings only.
        """
        assert self.bn is not None
        c = self.constants(x, residual)
        weight, factor = self.weight, torch.ones_like(c.scale_w)
        if self.reverse_fold:
            assert self.bn.running_var is not None
            factor = (self.bn.weight.detach() * (self.bn.running_var + self.bn.eps).rsqrt()).double()
            factor = torch.where(factor.abs() < 1e-6, torch.full_like(factor, 1e-6), factor)
        scaled = self.rows(weight) * factor[:, None].float()
        rows = self._rounded_rows(scaled, factor) / factor[:, None].float()
        y = self.bn(self.convolve(float_input(x), self.unrows(rows), self.bias))
        if residual is not None:
            y = y + sign * float_input(residual)
        lo, hi = self.bounds.limits(c.scale_y, self.dtype)
        return QTensor(exact.quantize(y, c.scale_y, lo, hi), c.scale_y, self.dtype)

    def _rounded_rows(self, rows: Tensor, factor: Tensor) -> Tensor:
        """Weights [O, count], times ``factor`` [O] already, in whole steps; with straight-through gradients."""
        if self.weight_scale is None:
            scale_w = (rows.detach().abs().amax(dim=1) / WEIGHT_LIMIT).clamp_min(1e-30)[:, None]
            return exact.through(rows, (rows.detach() / scale_w).round_() * scale_w, 1.0)
        learned = self.weight_scale * factor.abs().float()
        scale_w = learned.detach().clamp_min(1e-30)[:, None]
        unrounded = rows.detach() / scale_w
        inside = unrounded.abs() <= WEIGHT_LIMIT + 0.5
        steps = unrounded.round().clamp_(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        whole = exact.through(rows, steps, inside / scale_w)
        return with_row_steps(whole, unrounded, learned, WEIGHT_LIMIT) * scale_w

    def factor(self, c: WeightedConstants, acc: Tensor) -> Factor:
        """The rescale of each output channel."""
        return Factor.biased(c.multiplier, c.shift, (c.bound, c.products_bound), acc, acc.ndim, silent=c.dead)

    def unrows_scale(self, scale_w: Tensor) -> Tensor:
        """s_w shaped to broadcast over the weight."""
        return self.unrows(scale_w.float()[:, None].expand(-1, self.rows(self.weight).shape[1]))

    def onnx_weights(self, builder: OnnxBuilder) -> list[str]:
        """Write the weights and the bias."""
        weight, bias = self.folded()
        written = [builder.constant(weight.detach().numpy(), f"{self.label}.weight")]
        return written if bias is None else [*written, builder.constant(bias.detach().numpy(), f"{self.label}.bias")]

    def notes(self) -> list[str]:
        if self._constants is None:
            return []
        c: WeightedConstants = self._constants[1]
        notes = []
        if c.dead:
            notes.append(f"{len(c.dead)} dead channel(s), only their bias remains: {_some(c.dead)}")
        if c.raised:
            notes.append(f"{len(c.raised)} channel(s) with a raised weight scale, so fewer steps: {_some(c.raised)}")
        wanted = float(self.scale.detach())
        if c.scale_y > wanted > 0:
            notes.append(f"output scale raised from {wanted:.4g} to {c.scale_y:.4g}")
        return notes


def fold(layer: Weighted, weight: Tensor, bias: Tensor | None, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals ``bn(layer(x))`` with running statistics.

    w' = w g / sqrt(var + eps),  b' = (b - mean) g / sqrt(var + eps) + beta
    """
    assert bn.running_mean is not None
    factor = batch_norm_factor(bn)
    shifted = -bn.running_mean if bias is None else bias - bn.running_mean
    new_bias = shifted * factor
    if bn.bias is not None:
        new_bias = new_bias + bn.bias
    return layer.unrows(layer.rows(weight) * factor[:, None]), new_bias


def batch_norm_factor(bn: nn.BatchNorm2d) -> Tensor:
    """What folding multiplies each output channel's weights with, [O]: g / sqrt(var + eps)."""
    assert bn.running_var is not None
    factor = (bn.running_var + bn.eps).rsqrt()
    return factor if bn.weight is None else factor * bn.weight


def stored_arrays(layer: Weighted, c: WeightedConstants) -> dict[str, Any]:
    """The IR operator's arrays."""
    return {
        "weight": layer.unrows(c.weight).cpu().numpy(),
        "bias": c.bias.cpu().numpy(),
        "multiplier": c.multiplier,
        "shift": c.shift,
    }


def _some(channels: tuple[int, ...]) -> str:
    head = ", ".join(map(str, channels[:8]))
    return head + (", ..." if len(channels) > 8 else "")


def pair(value: Any) -> Hw:
    """An int or a pair as (vertical, horizontal)."""
    if isinstance(value, int):
        return (value, value)
    first, *rest = value
    return (int(first), int(rest[0] if rest else first))
