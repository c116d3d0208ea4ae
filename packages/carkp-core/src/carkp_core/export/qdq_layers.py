"""The QDQ form of each IR operator: ``WRITERS`` and ``INTEGER_WRITERS``, by operator class.

Legend: weights OIHW, transposed IOHW.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from carkp_core.errors import GraphError
from carkp_core.export.qdq_writer import QdqWriter
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Node
from carkp_core.ir.reference import counted_positions


def weight_scales(op: Any, scale_x: float, scale_y: float) -> Any:
    """The float32 s_w of each output channel, from the rescale: multiplier / 2**shift = s_x s_w / s_y."""
    ratio = np.ldexp(op.multiplier.astype(np.float64), -op.shift.astype(np.int64))
    return (ratio * float(np.float32(scale_y)) / float(np.float32(scale_x))).astype(np.float32)


def _conv2d(w: QdqWriter, node: Node, op: ops.Conv2d) -> str:
    scale_x = w.types[node.inputs[0]].scale
    scale_w = weight_scales(op, scale_x, node.type.scale)
    weight = w.dequantize(w.builder.constant(op.weight, f"{node.name}.w", "int8"), scale_w, f"{node.name}.weight", 0)
    y = w.builder.node(
        "Conv",
        [w.floats(node.inputs[0]), weight, _bias(w, node, op, scale_x, scale_w)],
        f"{node.name}.conv",
        kernel_shape=list(op.weight.shape[2:]),
        strides=list(op.stride_hw),
        pads=list(op.padding_tlbr),
        dilations=list(op.dilation_hw),
        group=op.groups,
    )
    if op.residual is None:
        return y
    operator = "Sub" if op.residual.negative else "Add"
    return w.builder.node(operator, [y, w.floats(node.inputs[1])], f"{node.name}.sum")


def _conv_transpose2d(w: QdqWriter, node: Node, op: ops.ConvTranspose2d) -> str:
    scale_x = w.types[node.inputs[0]].scale
    scale_w = weight_scales(op, scale_x, node.type.scale)
    stored = w.builder.constant(op.weight, f"{node.name}.w", "int8")
    if op.groups == 1:
        weight = w.dequantize(stored, scale_w, f"{node.name}.weight", 1)
    else:
        # Output channels lie on two axes, so there is no axis for DequantizeLinear.
        inside, per_group = op.weight.shape[:2]
        scales = np.repeat(scale_w.reshape(op.groups, per_group), inside // op.groups, axis=0)
        values = w.builder.node("Cast", [stored], f"{node.name}.cast", to=onnx.TensorProto.FLOAT)
        factor = w.builder.constant(scales[:, :, None, None], f"{node.name}.scales")
        weight = w.builder.node("Mul", [values, factor], f"{node.name}.weight")
    return w.builder.node(
        "ConvTranspose",
        [w.floats(node.inputs[0]), weight, _bias(w, node, op, scale_x, scale_w)],
        f"{node.name}.conv",
        kernel_shape=list(op.weight.shape[2:]),
        strides=list(op.stride_hw),
        pads=list(op.padding_tlbr),
        output_padding=list(op.output_padding_hw),
        group=op.groups,
    )


def _bias(w: QdqWriter, node: Node, op: Any, scale_x: float, scale_w: Any) -> str:
    stored = w.builder.constant(op.bias, f"{node.name}.b", "int32")
    return w.dequantize(stored, (np.float32(scale_x) * scale_w).astype(np.float32), f"{node.name}.bias", 0)


def _add(w: QdqWriter, node: Node, op: ops.Add) -> str:
    total = ""
    for index, (term, tensor) in enumerate(zip(op.terms, node.inputs, strict=True)):
        value = w.floats(tensor)
        if not total:
            total = w.builder.node("Neg", [value], f"{node.name}.neg") if term.negative else value
        else:
            total = w.builder.node("Sub" if term.negative else "Add", [total, value], f"{node.name}.sum{index}")
    return total


def _mul(w: QdqWriter, node: Node, op: ops.Mul) -> str:
    return w.builder.node("Mul", [w.floats(tensor) for tensor in node.inputs], f"{node.name}.mul")


def _same_value(w: QdqWriter, node: Node, op: Any) -> str:
    return w.floats(node.inputs[0])


def _rescale(w: QdqWriter, node: Node, op: ops.Rescale) -> str:
    """The value times what the integers and the scales make of it: 1 for a mere change of steps."""
    factor = math.ldexp(op.multiplier, -op.shift) * node.type.scale / w.types[node.inputs[0]].scale
    value = w.floats(node.inputs[0])
    if math.isclose(factor, 1.0, rel_tol=2.0**-22):
        return value
    return w.builder.node("Mul", [value, w.builder.constant(factor, f"{node.name}.factor")], f"{node.name}.mul")


def _concat(w: QdqWriter, node: Node, op: ops.Concat) -> str:
    return w.builder.node("Concat", [w.floats(t) for t in node.inputs], f"{node.name}.concat", axis=op.axis)


def _slice(w: QdqWriter, node: Node, op: ops.Slice) -> str:
    numbers = {"starts": op.start, "ends": op.stop, "axes": op.axis, "steps": op.step}
    written = [w.builder.constant([value], f"{node.name}.{key}", "int64") for key, value in numbers.items()]
    return w.builder.node("Slice", [w.floats(node.inputs[0]), *written], f"{node.name}.slice")


def _pad(w: QdqWriter, node: Node, op: ops.Pad) -> str:
    top, left, bottom, right = op.padding_tlbr
    front = [0] * (len(node.type.shape) - 2)
    pads = w.builder.constant([*front, top, left, *front, bottom, right], f"{node.name}.pads", "int64")
    value = w.builder.constant(np.float32(op.value) * np.float32(node.type.scale), f"{node.name}.value")
    return w.builder.node("Pad", [w.floats(node.inputs[0]), pads, value], f"{node.name}.pad")


def _max_pool(w: QdqWriter, node: Node, op: ops.MaxPool) -> str:
    return w.builder.node(
        "MaxPool",
        [w.floats(node.inputs[0])],
        f"{node.name}.pool",
        kernel_shape=list(op.kernel_hw),
        strides=list(op.stride_hw),
        pads=list(op.padding_tlbr),
        dilations=list(op.dilation_hw),
    )


def _avg_pool(w: QdqWriter, node: Node, op: ops.AvgPool) -> str:
    """A mean that counts all padding, times window size over divisor where that is not 1."""
    mean = w.builder.node(
        "AveragePool",
        [w.floats(node.inputs[0])],
        f"{node.name}.pool",
        kernel_shape=list(op.kernel_hw),
        strides=list(op.stride_hw),
        pads=list(op.padding_tlbr),
        count_include_pad=1,
    )
    kind = w.types[node.inputs[0]]
    counts = counted_positions(op, kind.shape[2:])
    ratio = np.ldexp(op.multiplier[counts].astype(np.float64), -op.shift[counts].astype(np.int64))
    # multiplier / 2**shift = s_x / (divisor s_y)
    share = (
        ratio * op.kernel_hw[0] * op.kernel_hw[1] * float(np.float32(node.type.scale)) / float(np.float32(kind.scale))
    )
    if np.allclose(share, 1.0, rtol=1e-6, atol=0.0):
        return mean
    return w.builder.node("Mul", [mean, w.builder.constant(share, f"{node.name}.share")], f"{node.name}.counted")


def _resize(w: QdqWriter, node: Node, op: ops.Resize) -> str:
    size = w.types[node.inputs[0]].shape[2:]
    pairs = list(zip(size, op.size_hw, strict=True))
    found = [
        (op.numerator_hw[d], op.denominator_hw[d], op.offset_hw[d]) for d in (0, 1)
    ]  # fmt: skip
    forms = {
        ("nearest", "asymmetric"): [_reduced(2 * out, 2 * s, -out) for s, out in pairs],
        ("bilinear", "half_pixel"): [_reduced(2 * out, 2 * s, s - out) for s, out in pairs],
        ("bilinear", "align_corners"): [_reduced(max(out - 1, 1), s - 1 if out > 1 else 0, 0) for s, out in pairs],
    }
    for (mode, positions), expected in forms.items():
        if mode == op.mode and [_reduced(*f) for f in found] == expected:
            sizes = w.builder.constant(list(node.type.shape), f"{node.name}.sizes", "int64")
            return w.builder.node(
                "Resize",
                [w.floats(node.inputs[0]), "", "", sizes],
                f"{node.name}.resize",
                mode="nearest" if mode == "nearest" else "linear",
                coordinate_transformation_mode=positions,
                nearest_mode="floor" if mode == "nearest" else None,
            )
    raise GraphError("this resize has no ONNX form", where=f"{node.name} ({node.source})", seen=str(op))


def _reduced(numerator: int, denominator: int, offset: int) -> tuple[int, int, int]:
    common = math.gcd(numerator, denominator, offset)
    return numerator // common, denominator // common, offset // common


def _reshape(w: QdqWriter, node: Node, op: ops.Reshape) -> str:
    shape = w.builder.constant(list(op.shape), f"{node.name}.shape", "int64")
    return w.builder.node("Reshape", [w.floats(node.inputs[0]), shape], f"{node.name}.reshape")


def _transpose(w: QdqWriter, node: Node, op: ops.Transpose) -> str:
    return w.builder.node("Transpose", [w.floats(node.inputs[0])], f"{node.name}.transpose", perm=list(op.permutation))


def _constant(w: QdqWriter, node: Node, op: ops.Constant) -> str:
    return w.builder.constant(op.value, node.name, node.type.dtype)


def _table(w: QdqWriter, node: Node, op: ops.Table) -> str:
    """Look up in integers: index = q + 128 (plus 256 for each channel before)."""
    if op.table.shape[-1] == 513:
        return _interpolated_table(w, node, op)
    b, name = w.builder, node.name
    offset: Any = 128
    if op.table.ndim == 2:
        rank = len(node.type.shape)
        offset = 128 + 256 * np.arange(op.table.shape[0]).reshape(1, -1, *([1] * (rank - 2)))
    wide = b.node("Cast", [w.integers[node.inputs[0]]], f"{name}.wide", to=onnx.TensorProto.INT32)
    index = b.node("Add", [wide, b.constant(offset, f"{name}.offset", "int32")], f"{name}.index")
    table = b.constant(op.table.reshape(-1), f"{name}.table", node.type.dtype)
    return b.node("Gather", [table, index], name, axis=0)


def _interpolated_table(w: QdqWriter, node: Node, op: ops.Table) -> str:
    """TOSA's int16 table in int32; sums are made positive before the division, which truncates."""
    b, name = w.builder, node.name

    def number(value: int) -> str:
        return b.constant(value, f"{name}.number", "int32")

    def step(kind: str, *inputs: str) -> str:
        return b.node(kind, inputs, f"{name}.{kind.lower()}")

    wide = b.node("Cast", [w.integers[node.inputs[0]]], f"{name}.wide", to=onnx.TensorProto.INT32)
    position = step("Add", wide, number(1 << 15))
    index = step("Div", position, number(128))
    fraction = step("Sub", position, step("Mul", index, number(128)))
    table = b.constant(op.table, f"{name}.table", "int32")
    base, following = step("Gather", table, index), step("Gather", table, step("Add", index, number(1)))
    slope = step("Mul", step("Sub", following, base), fraction)
    total = step("Add", step("Mul", base, number(128)), slope)
    positive = step("Add", total, number((1 << 24) + 64))
    rounded = step("Sub", step("Div", positive, number(128)), number(1 << 17))
    clipped = step("Min", step("Max", rounded, number(-32768)), number(32767))
    return b.node("Cast", [clipped], name, to=onnx.TensorProto.INT16)


#: Writers of the float form, behind which the clamp and the quantizer come.
WRITERS: dict[type, Callable[[QdqWriter, Node, Any], str]] = {
    ops.Conv2d: _conv2d,
    ops.ConvTranspose2d: _conv_transpose2d,
    ops.Add: _add,
    ops.Mul: _mul,
    ops.Rescale: _rescale,
    ops.Clamp: _same_value,
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.Pad: _pad,
    ops.MaxPool: _max_pool,
    ops.AvgPool: _avg_pool,
    ops.Resize: _resize,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
}

#: Writers of the integers themselves.
INTEGER_WRITERS: dict[type, Callable[[QdqWriter, Node, Any], str]] = {ops.Table: _table, ops.Constant: _constant}
