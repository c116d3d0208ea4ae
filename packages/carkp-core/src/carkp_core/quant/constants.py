"""The integers of a weighted layer, from its float weights and the scales round it: one function for all.

The fake quantizer computes with them and the converter writes them into the IR, so the two cannot differ.

For output channel c, with input scale s_x and output scale s_y::

    s_w[c]      = max(absmax(w[c]) / 127, |b[c]| / (s_x 2**30), least scale whose shift is legal)
    w_q         = round_half_even(w / s_w)              in [-127, 127]
    b_q         = round_half_even(b / float32(s_x s_w))
    m, shift    = float32(float32(s_x s_w) / s_y)       as an integer of 31 bits and a power of two

Degenerate channels (dead, or with a bias far above their weights) get the larger s_w that the second and third term
ask for: their weights round to fewer steps, at last to 0, and their bias survives. An output scale so fine that a
shift would be below 2 is raised. With int16 inputs s_w is first raised until the sum fits int32.

Legend: ``O`` output channels, ``rows`` [O, count] all weights that an output channel may be summed with.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen
from torch import Tensor

from carkp_core.errors import QuantizationError
from carkp_core.ir.arithmetic import ADD_FRACTION_BITS, INT_RANGE, SHIFT_MAX, SHIFT_MIN

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

WEIGHT_LIMIT = 127
#: No activation is quantized finer or coarser than this: a scale stays far from float32's limits.
SCALE_MIN, SCALE_MAX = 2.0**-60, 2.0**60
_TINY = np.float32(2.0**-120)
#: One float32 step above 1, to stay on the legal side of a bound whatever the roundings.
_ABOVE = 1.0 + 2.0**-21


@frozen(eq=False)
class WeightedConstants:
    """Everything that a convolution's integer arithmetic needs."""

    weight: Tensor  # float32 whole numbers, [O, count] rows
    bias: Tensor  # float64 whole numbers, [O]
    scale_w: Tensor  # float64, [O]
    scale_acc: Tensor  # float64, [O]: float32(s_x s_w)
    scale_y: float
    multiplier: Ints  # [O]
    shift: Ints  # [O]
    #: Greatest |sum of products| of a channel, and with the bias.
    products_bound: int
    bound: int
    #: Channels whose s_w was raised, and those whose weights all became 0.
    raised: tuple[int, ...]
    dead: tuple[int, ...]


def weighted_constants(
    rows: Tensor,
    bias: Tensor | None,
    scale_x: float,
    dtype_x: str,
    scale_y: float,
    in_add: bool,
    name: str,
    learned: Tensor | None = None,
) -> WeightedConstants:
    """Quantize a layer's weights and bias and choose its multipliers.

    Parameters
    ----------
    rows:
        Float weights, [O, count].
    bias:
        Float bias [O], or None.
    scale_x, dtype_x:
        The input's step and type.
    scale_y:
        The wanted output step; ``WeightedConstants.scale_y`` is the one used.
    in_add:
        The accumulator is a term of an add (15 fractional bits).
    name:
        The layer, for messages.
    learned:
        Scales [O] that take the place of absmax / 127 where they are above 0. Weights beyond 127 steps are clamped.

    Raises
    ------
    QuantizationError
        When the accumulator may leave int32.
    """
    rows = rows.detach()
    offsets = torch.zeros_like(rows[:, 0]) if bias is None else bias.detach()
    offsets = offsets.double()
    absmax = torch.linalg.vector_norm(rows, torch.inf, dim=1).double().cpu().numpy()
    scale_x32 = np.float32(scale_x)
    steps_w = absmax / WEIGHT_LIMIT
    if learned is not None:
        given = learned.detach().double().cpu().numpy()
        steps_w = np.where(given > 0.0, given, steps_w)
    wanted = np.maximum(steps_w.astype(np.float32), _TINY)
    from_bias = np.abs(offsets.cpu().numpy()) / (float(scale_x32) * 2.0**30)
    scale_w = np.maximum(wanted, from_bias.astype(np.float32))
    if dtype_x == "int16":
        scale_w = _fit_int16(rows, offsets, scale_x32, scale_w)
    products = (scale_x32 * scale_w).astype(np.float32)
    scale_y = raised_scale(scale_y, products, in_add)
    scale_w = np.maximum(scale_w, _least_scale(scale_x32, scale_y, in_add))
    products = (scale_x32 * scale_w).astype(np.float32)
    multiplier, shift = multipliers(products, scale_y, in_add)
    scale_w64 = torch.as_tensor(scale_w.astype(np.float64), device=rows.device)
    scale_acc = torch.as_tensor(products.astype(np.float64), device=rows.device)
    weight, steps = _integers(rows, offsets, scale_w64, scale_acc)
    sums = _sums(weight, dtype_x)
    bounds = sums + steps.abs()
    bound = int(bounds.max())
    if bound > INT_RANGE["int32"][1]:
        channel = int(bounds.argmax())
        raise QuantizationError(
            "the accumulator may leave int32",
            where=name,
            seen=f"channel {channel}: sum of |weights| {int(weight[channel].abs().sum())}"
            f" times {-INT_RANGE[dtype_x][0]} plus |bias| {int(steps[channel].abs())} is {bound}",
            allowed=str(INT_RANGE["int32"][1]),
            remedy="use fewer input channels or a smaller kernel, or groups",
        )
    dead = (sums == 0).cpu().numpy()
    return WeightedConstants(
        weight=weight,
        bias=steps,
        scale_w=scale_w64,
        scale_acc=scale_acc,
        scale_y=scale_y,
        multiplier=multiplier,
        shift=shift,
        products_bound=int(sums.max()),
        bound=bound,
        raised=tuple(int(c) for c in np.flatnonzero((scale_w > wanted) & ~dead)),
        dead=tuple(int(c) for c in np.flatnonzero(dead)),
    )


def tensor_multiplier(scale_x: float, scale_w: float, scale_y: float, in_add: bool = False) -> tuple[int, int]:
    """Multiplier and shift of a rescale without weights; a ratio below the least legal one becomes that one.

    There, every value of the tensor rescales to 0 either way.
    """
    product = np.float32(np.float32(scale_x) * np.float32(scale_w))
    multiplier, shift = multipliers(np.asarray([product]), scale_y, in_add)
    return int(multiplier[0]), int(shift[0])


def raised_scale(scale_y: float, products: npt.ArrayLike, in_add: bool) -> float:
    """The output scale, raised as far as the shifts of these products s_x s_w ask for; a float32 value."""
    limit = 2.0 ** (31 - SHIFT_MIN - (ADD_FRACTION_BITS if in_add else 0))
    least = float(np.max(np.asarray(products, dtype=np.float64))) / limit * _ABOVE
    return float(np.float32(max(scale_y, least)))


def multipliers(products: Floats, scale_y: float, in_add: bool) -> tuple[Ints, Ints]:
    """Integers of float32(products / s_y), at least the least legal ratio."""
    ratio = (products.astype(np.float32) / np.float32(scale_y)).astype(np.float32)
    ratio = np.maximum(ratio, np.float32(_least_ratio(in_add)))
    mantissa, exponent = np.frexp(ratio.astype(np.float64))
    shift = 31 - exponent.astype(np.int64)
    offset = ADD_FRACTION_BITS if in_add else 0
    assert shift.min() - offset >= SHIFT_MIN, shift.min()
    assert shift.max() - offset <= SHIFT_MAX, shift.max()
    return (mantissa * (1 << 31)).astype(np.int64), shift


def safe_scale(absmax: float, dtype: str) -> float:
    """The scale of an observed tensor: absmax / qmax, kept in [2**-60, 2**60]; a tensor of zeros gets 1 / qmax."""
    highest = INT_RANGE[dtype][1]
    scale = absmax / highest if absmax > 0.0 else 1.0 / highest
    return float(np.float32(min(max(scale, SCALE_MIN), SCALE_MAX)))


def _least_ratio(in_add: bool) -> float:
    return 2.0 ** (30 - SHIFT_MAX - (ADD_FRACTION_BITS if in_add else 0))


def _least_scale(scale_x: np.float32, scale_y: float, in_add: bool) -> np.float32:
    return np.float32(max(_least_ratio(in_add) * scale_y / float(scale_x) * _ABOVE, float(_TINY)))


def _integers(rows: Tensor, offsets: Tensor, scale_w: Tensor, scale_acc: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [O, count], float32, and bias [O], float64, as whole numbers."""
    weight = rows.double().div_(scale_w[:, None]).round_().float().clamp_(-WEIGHT_LIMIT, WEIGHT_LIMIT)
    lowest, highest = INT_RANGE["int32"]
    return weight, (offsets / scale_acc).round_().clamp_(lowest, highest)


def _sums(weight: Tensor, dtype_x: str) -> Tensor:
    """Greatest |sum of products| of each channel over all inputs of a type: the input's least value is its largest."""
    return torch.linalg.vector_norm(weight, 1, dim=1, dtype=torch.float64) * -INT_RANGE[dtype_x][0]


def _fit_int16(rows: Tensor, offsets: Tensor, scale_x: np.float32, scale_w: Floats) -> Floats:
    """Raise s_w until the sum of an int16 input's products and the bias fits int32."""
    limit = float(INT_RANGE["int32"][1])
    for _ in range(64):
        scale_w64 = torch.as_tensor(scale_w.astype(np.float64), device=rows.device)
        scale_acc = torch.as_tensor((scale_x * scale_w).astype(np.float64), device=rows.device)
        weight, steps = _integers(rows, offsets, scale_w64, scale_acc)
        bound = (_sums(weight, "int16") + steps.abs()).cpu().numpy()
        over = bound > limit
        if not over.any():
            break
        scale_w = np.where(over, scale_w * np.maximum(bound / limit, 1.0) * 1.001, scale_w).astype(np.float32)
    return scale_w
