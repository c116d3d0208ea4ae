"""A node test as a torch network of one call, for the float exporter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor, nn

from conformance.onnx_tests import Array, LeftOutError, NodeTest, window


@frozen(eq=False)
class Network:
    """A network and its inputs; its output has the expected elements, perhaps with a dimension of 1 before."""

    module: nn.Module
    inputs: tuple[Array, ...]


class OneCall(nn.Module):
    """A function of the inputs and of constants."""

    def __init__(self, function: Callable[..., Tensor], constants: Sequence[Array]) -> None:
        super().__init__()
        self.function = function
        self.count = len(constants)
        for index, value in enumerate(constants):
            self.register_buffer(f"constant_{index}", torch.from_numpy(np.array(value)))

    def forward(self, *inputs: Tensor) -> Tensor:
        """The call."""
        return self.function(*inputs, *(getattr(self, f"constant_{index}") for index in range(self.count)))


def float_network(test: NodeTest) -> Network:
    """The network whose export should compute the test's output.

    Raises
    ------
    LeftOutError
        When torch, or the exporter, has no such call.
    """
    make = _NETWORKS.get(test.op_type)
    if make is None:
        raise LeftOutError("part of another operator's form")
    return make(test)


def _conv(test: NodeTest) -> Network:
    weight = test.tensor(1)
    w = window(test, weight.shape[2:])
    (top, left, bottom, right), group = w.padding_tlbr, test.attributes.get("group", 1)

    def call(x: Tensor, weight: Tensor) -> Tensor:
        if w.symmetric:
            return F.conv2d(x, weight, None, w.stride, (top, left), w.dilation, group)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, None, w.stride, 0, w.dilation, group)

    return Network(OneCall(call, [weight]), (test.tensor(),))


def _conv_transpose(test: NodeTest) -> Network:
    x, weight = test.tensor(), test.tensor(1)
    stride, dilation, crop, extra = transposed_window(test, weight.shape[2:])
    if dilation != (1, 1):
        raise LeftOutError("dilated transposed convolution")
    group = test.attributes.get("group", 1)

    def call(x: Tensor, weight: Tensor) -> Tensor:
        if crop[:2] == crop[2:]:
            return F.conv_transpose2d(x, weight, None, stride, crop[:2], extra, group)
        y = F.conv_transpose2d(x, weight, None, stride, 0, extra, group)
        return y[:, :, crop[0] : y.shape[2] - crop[2], crop[1] : y.shape[3] - crop[3]]

    return Network(OneCall(call, [weight]), (x,))


def transposed_window(test: NodeTest, kernel: Sequence[int]) -> tuple[Any, Any, tuple[int, int, int, int], Any]:
    """Stride, dilation, what is cropped (top, left, bottom, right) and output padding, given or worked out."""
    if len(kernel) != 2:
        raise LeftOutError(f"{len(kernel)}-d")
    attributes, size = test.attributes, test.tensor().shape[2:]
    stride, dilation = (tuple(attributes.get(key, (1, 1))) for key in ("strides", "dilations"))
    extra, crop = tuple(attributes.get("output_padding", (0, 0))), tuple(attributes.get("pads", (0, 0, 0, 0)))
    wanted = attributes.get("output_shape")
    if wanted is None and attributes.get("auto_pad", "NOTSET") != "NOTSET":
        wanted = [s * n for s, n in zip(stride, size, strict=True)]
    if wanted is not None:
        spans = [stride[a] * (size[a] - 1) + dilation[a] * (kernel[a] - 1) + 1 for a in (0, 1)]
        total = [max(span - out, 0) for span, out in zip(spans, wanted, strict=True)]
        extra = tuple(max(out - span, 0) for span, out in zip(spans, wanted, strict=True))
        first = [t - t // 2 if attributes.get("auto_pad") == "SAME_LOWER" else t // 2 for t in total]
        crop = (first[0], first[1], total[0] - first[0], total[1] - first[1])
    return stride, dilation, (crop[0], crop[1], crop[2], crop[3]), extra


def _pool(test: NodeTest) -> Network:
    if len(test.model.graph.output) > 1:
        raise LeftOutError("positions of the maxima")
    x, w = test.tensor(), window(test, tuple(test.attributes["kernel_shape"]))
    if not w.symmetric or any(2 * p > k for p, k in zip(w.padding_tlbr, w.kernel * 2, strict=True)):
        raise LeftOutError("padding that torch's pools do not have")
    padding = w.padding_tlbr[:2]
    if test.op_type == "MaxPool":
        return Network(OneCall(lambda v: F.max_pool2d(v, w.kernel, w.stride, padding, w.dilation, w.ceil), ()), (x,))
    if w.dilation != (1, 1):
        raise LeftOutError("dilated average pool")
    include = bool(test.attributes.get("count_include_pad", 0))
    return Network(OneCall(lambda v: F.avg_pool2d(v, w.kernel, w.stride, padding, w.ceil, include), ()), (x,))


def _resize(test: NodeTest) -> Network:
    """Nearest by whole factors, whatever the coordinates are called; bilinear as torch has it."""
    x, mode = test.tensor(), test.attributes.get("mode", "nearest")
    positions = test.attributes.get("coordinate_transformation_mode", "half_pixel")
    size, out = x.shape[2:], test.expected.shape[2:]
    if mode == "cubic" or test.attributes.get("antialias") or test.attributes.get("keep_aspect_ratio_policy"):
        raise LeftOutError("cubic, antialiased or by aspect ratio")
    whole = not any(o % s for o, s in zip(out, size, strict=True))
    rounding = test.attributes.get("nearest_mode", "round_prefer_floor")
    if mode == "nearest" and not (whole and positions == "half_pixel" and rounding.startswith("round")):
        raise LeftOutError("nearest by another factor, rounding or coordinates")
    if mode == "linear" and positions not in ("half_pixel", "align_corners"):
        raise LeftOutError("coordinates that torch does not have")
    scales = test.input(2)
    if scales is not None and scales.size and any(float(s) * n % 1 for s, n in zip(scales[-2:], size, strict=True)):
        raise LeftOutError("a scale that is not the ratio of the sizes")
    if mode == "nearest":
        return Network(OneCall(lambda v: F.interpolate(v, size=out, mode="nearest"), ()), (x,))
    corners = positions == "align_corners"
    return Network(OneCall(lambda v: F.interpolate(v, size=out, mode="bilinear", align_corners=corners), ()), (x,))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[NodeTest], Network]:
    def make(test: NodeTest) -> Network:
        rank = test.expected.ndim
        values = [test.tensor(index) for index in (0, 1)]
        shapes = [(1,) * (rank + 1 - value.ndim) + value.shape for value in values]
        return Network(OneCall(function, ()), tuple(v.reshape(s) for v, s in zip(values, shapes, strict=True)))

    return make


def _concat(test: NodeTest) -> Network:
    axis = test.attributes["axis"] % test.expected.ndim + 1
    values = tuple(test.tensor(index)[None] for index in range(len(test.inputs)))
    return Network(OneCall(lambda *parts: torch.cat(parts, axis), ()), values)


def _slice(test: NodeTest) -> Network:
    x = test.tensor()
    starts, ends = (np.asarray(test.input(index)).tolist() for index in (1, 2))
    axes, steps = test.input(3), test.input(4)
    along = list(range(len(starts))) if axes is None else [axis % x.ndim for axis in axes.tolist()]
    by = [1] * len(starts) if steps is None else steps.tolist()
    if min(by) < 1:
        raise LeftOutError("a negative step")
    if 0 in test.expected.shape:
        raise LeftOutError("an empty tensor")
    index = [slice(None)] * (x.ndim + 1)
    for axis, start, stop, step in zip(along, starts, ends, by, strict=True):
        index[axis + 1] = slice(*slice(start, stop, step).indices(x.shape[axis]))
    return Network(OneCall(lambda v: v[tuple(index)], ()), (x[None],))


def _pad(test: NodeTest) -> Network:
    if test.attributes.get("mode", "constant") != "constant":
        raise LeftOutError("other than constant padding")
    x, pads, value = test.tensor(), np.asarray(test.input(1)).tolist(), test.input(2)
    axes = test.input(3)
    along = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes.tolist()]
    around = np.zeros((x.ndim, 2), dtype=int)
    around[along] = np.array(pads).reshape(2, -1).T
    if around[:-2].any():
        raise LeftOutError("padding of other dimensions than H and W")
    edges = tuple(around[::-1].reshape(-1).tolist()[:4])
    fill = 0.0 if value is None else float(value)
    return Network(OneCall(lambda v: F.pad(v, edges, value=fill), ()), (x,))


def _reshape(test: NodeTest) -> Network:
    return Network(OneCall(lambda v: v.reshape(-1, *test.expected.shape), ()), (test.tensor()[None],))


def _transpose(test: NodeTest) -> Network:
    x = test.tensor()
    order = test.attributes.get("perm", list(range(x.ndim))[::-1])
    return Network(OneCall(lambda v: v.permute(0, *(axis + 1 for axis in order)), ()), (x[None],))


def _clip(test: NodeTest) -> Network:
    lo, hi = (None if bound is None else float(bound) for bound in (test.input(1), test.input(2)))
    if lo is None and hi is None:
        raise LeftOutError("nothing to clip")
    if lo is not None and hi is not None and lo > hi:
        raise LeftOutError("bounds that exclude everything")
    return Network(OneCall(lambda v: torch.clamp(v, lo, hi), ()), (test.tensor()[None],))


def _prelu(test: NodeTest) -> Network:
    """Slopes of the last dimension are slopes of channels once that stands second."""
    x, slopes = test.tensor(), test.tensor(1)
    if slopes.ndim != 1 or x.ndim != 3:
        raise LeftOutError("a slope for each element")

    def call(v: Tensor, s: Tensor) -> Tensor:
        return F.prelu(v.permute(0, 3, 1, 2), s).permute(0, 2, 3, 1)

    return Network(OneCall(call, [slopes]), (x[None],))


def _unary(function: Callable[..., Tensor], **renamed: Any) -> Callable[[NodeTest], Network]:
    """A function of one tensor; attributes become its arguments under other names, with ONNX's defaults."""

    def make(test: NodeTest) -> Network:
        given = {name: test.attributes.get(key, default) for name, (key, default) in renamed.items()}
        return Network(OneCall(lambda v: function(v, **given), ()), (test.tensor()[None],))

    return make


def _fixed(function: Callable[..., Tensor], **fixed: tuple[float, float]) -> Callable[[NodeTest], Network]:
    """A function that torch has with one set of parameters: (ONNX's default, torch's number) for each."""

    def make(test: NodeTest) -> Network:
        if any(abs(test.attributes.get(key, usual) - value) > 1e-6 for key, (usual, value) in fixed.items()):
            raise LeftOutError("parameters that torch does not have")
        return Network(OneCall(function, ()), (test.tensor()[None],))

    return make


def _shrink(test: NodeTest) -> Network:
    lambd, bias = test.attributes.get("lambd", 0.5), test.attributes.get("bias", 0.0)
    function = F.softshrink if bias else F.hardshrink
    if bias not in (0.0, lambd):
        raise LeftOutError("parameters that torch does not have")
    return Network(OneCall(lambda v: function(v, lambd), ()), (test.tensor()[None],))


def _pow(test: NodeTest) -> Network:
    exponent = test.tensor(1)
    if exponent.size != 1:
        raise LeftOutError("an exponent for each element")
    return Network(OneCall(lambda v: v ** float(exponent), ()), (test.tensor()[None],))


#: ONNX's alpha and gamma, which are torch's.
_SELU = (1.6732632, 1.0507010)

_NETWORKS: dict[str, Callable[[NodeTest], Network]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Resize": _resize,
    "Add": _binary(torch.add),
    "Sub": _binary(torch.sub),
    "Mul": _binary(torch.mul),
    "Concat": _concat,
    "Slice": _slice,
    "Pad": _pad,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Relu": _unary(F.relu),
    "Clip": _clip,
    "PRelu": _prelu,
    "Neg": _unary(torch.neg),
    "Sigmoid": _unary(torch.sigmoid),
    "Tanh": _unary(torch.tanh),
    "HardSigmoid": _fixed(F.hardsigmoid, alpha=(0.2, 1.0 / 6.0), beta=(0.5, 0.5)),
    "LeakyRelu": _unary(F.leaky_relu, negative_slope=("alpha", 0.01)),
    "Elu": _unary(F.elu, alpha=("alpha", 1.0)),
    "Celu": _unary(F.celu, alpha=("alpha", 1.0)),
    "Selu": _fixed(F.selu, alpha=(_SELU[0], _SELU[0]), gamma=(_SELU[1], _SELU[1])),
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "Shrink": _shrink,
    "Abs": _unary(torch.abs),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Sqrt": _unary(torch.sqrt),
    "Reciprocal": _unary(torch.reciprocal),
    "Erf": _unary(torch.erf),
    "Sin": _unary(torch.sin),
    "Cos": _unary(torch.cos),
    "Floor": _unary(torch.floor),
    "Ceil": _unary(torch.ceil),
    "Round": _unary(torch.round),
    "Sign": _unary(torch.sign),
    "Pow": _pow,
}
