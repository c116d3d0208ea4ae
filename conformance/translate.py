"""TOSA programs as graphs of the integer IR: one function per operator, listed at the end.

A program with images becomes a graph in NCHW, whose batch is the images'; any other gets a leading dimension of 1.
Where an operator's TOSA form differs from the IR's it is composed from IR operators:

================ =================================================================================
TOSA             the integer IR
================ =================================================================================
convolutions     rescale by 1 to int32; ``out_pad`` of a transposed one: padded input, cropped output
RESCALE          per channel: slices of one channel, rescaled each by a concat
ADD, SUB, MUL    int32 terms with factor 1
PAD              one pad for each dimension, seen as rows of (before, dimension, after)
SLICE            one slice for each dimension
================ =================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from attrs import field, frozen

from carkp_core.ir import operators as ops
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.ir.graph import Graph, GraphInput, Node, Operation, TensorType
from carkp_core.ir.verify import findings
from conformance.program import Array, Operator, Program

#: Multiplier and shift of the factor 1, and the same for a term of an add.
ONE = (1 << 30, 30)
TERM = ops.Term(1 << 30, 30)

#: Findings of the verifier that do not stand in the way: the converter never makes a weight of -128, executors take it.
TOLERATED = frozenset({"weight"})


class LeftOutError(Exception):
    """The program uses what the integer IR does not have; the message is the reason."""


@frozen
class Layout:
    """How TOSA's tensors are seen in the IR: a permutation of an image's dimensions, or a dimension put before."""

    images: bool

    def ir(self, value: Array) -> Array:
        """A tensor of TOSA as the IR has it."""
        return np.ascontiguousarray(value.transpose(0, 3, 1, 2) if self.images else value[None])

    def tosa(self, value: Array) -> Array:
        """The other way."""
        return value.transpose(0, 2, 3, 1) if self.images else value[0]

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The IR's shape, in which N is 1."""
        if not self.images:
            return (1, *shape)
        _, height, width, channels = shape
        return (1, channels, height, width)

    def axis(self, axis: int) -> int:
        """The IR's number of a dimension."""
        return (0, 2, 3, 1)[axis] if self.images else axis + 1


@frozen(eq=False)
class Translation:
    """A program as a graph, its inputs as the graph takes them, and the way back for outputs."""

    graph: Graph
    inputs: dict[str, Array]
    layout: Layout


def translate(program: Program) -> Translation:
    """The program as a verified graph.

    Raises
    ------
    LeftOutError
        When it uses what the IR does not have.
    ValueError
        When the graph breaks a rule of the IR for another reason: a defect.
    """
    if any(tensor.dtype == "int48" for tensor in program.tensors.values()):
        raise LeftOutError("48-bit accumulators")
    writer = Writer.of(program)
    for operator in program.operators:
        writer.names[operator.output] = TRANSLATORS[operator.name](writer, operator)
    return writer.finished()


@frozen(eq=False)
class Writer:
    """A graph as it grows."""

    program: Program
    layout: Layout
    inputs: list[GraphInput] = field(factory=list)
    nodes: list[Node] = field(factory=list)
    types: dict[str, TensorType] = field(factory=dict)
    #: TOSA's tensors by their name in the graph.
    names: dict[str, str] = field(factory=dict)

    @classmethod
    def of(cls, program: Program) -> Writer:
        """An empty graph for a program."""
        return cls(program, Layout(any(operator.name in _IMAGE_OPERATORS for operator in program.operators)))

    def finished(self) -> Translation:
        """The graph, verified."""
        outputs = tuple(map(self.tensor, self.program.outputs))
        graph = Graph(self.program.name, tuple(self.inputs), tuple(self.nodes), outputs)
        broken = [finding for finding in findings(graph) if finding.rule not in TOLERATED]
        if broken and all(finding.rule == "accumulator" for finding in broken):
            raise LeftOutError("accumulator not proven to fit int32")
        if broken:
            raise ValueError("; ".join(map(str, broken)))
        inputs = {declared.name: self.layout.ir(self.program.values[declared.name]) for declared in self.inputs}
        return Translation(graph, inputs, self.layout)

    def tensor(self, name: str) -> str:
        """A tensor of TOSA in the graph, made an input or a constant when it is first asked for."""
        if name not in self.names:
            tensor = self.program.tensors[name]
            if name in self.program.inputs:
                kind = TensorType(self.layout.shape(tensor.shape), tensor.dtype, 1.0)
                self.inputs.append(GraphInput(name, kind))
                self.types[name] = kind
                self.names[name] = name
            else:
                value = self.layout.ir(self.program.values[name])
                self.names[name] = self.add(ops.Constant(value), (), tensor.dtype)
        return self.names[name]

    def add(self, op: Operation, inputs: Sequence[str], dtype: str | None = None) -> str:
        """A node; its type is the first input's unless given."""
        shape = op.infer_shape(tuple(self.types[name].shape for name in inputs))
        name = f"{op.kind}_{len(self.nodes)}"
        self.types[name] = TensorType(shape, dtype or self.types[inputs[0]].dtype, 1.0)
        self.nodes.append(Node(name, op, tuple(inputs), self.types[name]))
        return name

    def value(self, name: str) -> Array:
        """What a constant holds (or an input, where the IR wants a constant)."""
        return self.program.values[name]

    def range(self, operator: Operator) -> tuple[str, int, int]:
        """Type of an operator's output and its least and greatest value; a 48-bit sum is one of 32 bits here."""
        dtype = self.program.tensors[operator.output].dtype.replace("int48", "int32")
        return dtype, *INT_RANGE[dtype]

    def require_zero_points(self, *names: str) -> None:
        """Zero points are 0."""
        if any(self.value(name).any() for name in names):
            raise LeftOutError("zero point not 0")


def _conv2d(w: Writer, o: Operator) -> str:
    weight = w.value(o.inputs[1]).transpose(0, 3, 1, 2)
    return _convolution(w, o, weight, 1)


def _depthwise_conv2d(w: Writer, o: Operator) -> str:
    kh, kw, channels, multiple = w.value(o.inputs[1]).shape
    weight = w.value(o.inputs[1]).transpose(2, 3, 0, 1).reshape(channels * multiple, 1, kh, kw)
    return _convolution(w, o, weight, channels)


def _convolution(w: Writer, o: Operator, weight: Array, groups: int) -> str:
    w.require_zero_points(*o.inputs[3:])
    dtype, lo, hi = w.range(o)
    top, bottom, left, right = o.attributes["pad"]
    op = ops.Conv2d(
        weight,
        *_bias_and_factor(w, o, weight.shape[0]),
        lo,
        hi,
        stride_hw=tuple(o.attributes["stride"]),
        padding_tlbr=(top, left, bottom, right),
        dilation_hw=tuple(o.attributes["dilation"]),
        groups=groups,
    )
    return w.add(op, [w.tensor(o.inputs[0])], dtype)


def _bias_and_factor(w: Writer, o: Operator, channels: int) -> tuple[Array, Array, Array]:
    bias = np.broadcast_to(w.value(o.inputs[2]), (channels,))
    multiplier, shift = (np.full(channels, number) for number in ONE)
    return bias, multiplier, shift


def _transpose_conv2d(w: Writer, o: Operator) -> str:
    """TOSA's ``out_pad`` widens the output (the IR's padding crops it); rows before the first come from more input."""
    w.require_zero_points(*o.inputs[3:])
    dtype, lo, hi = w.range(o)
    weight = w.value(o.inputs[1]).transpose(3, 0, 1, 2)
    top, bottom, left, right = o.attributes["out_pad"]
    stride = tuple(o.attributes["stride"])
    more = [math.ceil(max(before, 0) / step) for before, step in zip((top, left), stride, strict=True)]
    x = w.tensor(o.inputs[0])
    if any(more):
        x = w.add(ops.Pad((more[0], more[1], 0, 0)), [x])
    op = ops.ConvTranspose2d(
        weight,
        *_bias_and_factor(w, o, weight.shape[1]),
        lo,
        hi,
        stride_hw=stride,
        padding_tlbr=(more[0] * stride[0] - top, more[1] * stride[1] - left, max(-bottom, 0), max(-right, 0)),
        output_padding_hw=(max(bottom, 0), max(right, 0)),
    )
    return w.add(op, [x], dtype)


def _avg_pool2d(w: Writer, o: Operator) -> str:
    """TOSA divides by the positions inside the image, with a reciprocal of its own for each count."""
    w.require_zero_points(*o.inputs[1:])
    _, lo, hi = w.range(o)
    kernel = tuple(o.attributes["kernel"])
    top, bottom, left, right = o.attributes["pad"]
    counts = range(1, kernel[0] * kernel[1] + 1)
    # TOSA's reciprocal_scale: (2**30 + 1) * 2**k // count with 2**k the power of two that is not below count.
    powers = [(count - 1).bit_length() for count in counts]
    multiplier = [0, *((((1 << 30) + 1) << k) // count for count, k in zip(counts, powers, strict=True))]
    shift = [0, *(30 + k for k in powers)]
    numbers = (np.array(multiplier), np.array(shift))
    op = ops.AvgPool(kernel, tuple(o.attributes["stride"]), (top, left, bottom, right), False, (0, 0), *numbers, lo, hi)
    return w.add(op, [w.tensor(o.inputs[0])])


def _max_pool2d(w: Writer, o: Operator) -> str:
    top, bottom, left, right = o.attributes["pad"]
    op = ops.MaxPool(tuple(o.attributes["kernel"]), tuple(o.attributes["stride"]), (top, left, bottom, right))
    return w.add(op, [w.tensor(o.inputs[0])])


def _resize(w: Writer, o: Operator) -> str:
    dtype, lo, hi = w.range(o)
    scale, offset, border = (w.value(name).tolist() for name in o.inputs[1:4])
    height, width = w.program.tensors[o.output].shape[1:3]
    op = ops.Resize(
        o.attributes["mode"].lower().removesuffix("_neighbor"),
        (height, width),
        numerator_hw=(scale[0], scale[2]),
        denominator_hw=(scale[1], scale[3]),
        offset_hw=(offset[0], offset[1]),
        multiplier=ONE[0],
        shift=ONE[1],
        lo=lo,
        hi=hi,
        border_hw=(border[0], border[1]),
    )
    return w.add(op, [w.tensor(o.inputs[0])], dtype)


def _rescale(w: Writer, o: Operator) -> str:
    multiplier, shift = factors(w, o)
    dtype, lo, hi = w.range(o)
    x = w.tensor(o.inputs[0])
    if not o.attributes["per_channel"]:
        return w.add(ops.Rescale(multiplier[0], shift[0], lo, hi), [x], dtype)
    axis = w.layout.axis(len(w.program.tensors[o.inputs[0]].shape) - 1)
    channels = [w.add(ops.Slice(axis, c, c + 1), [x]) for c in range(len(multiplier))]
    terms = tuple(ops.Term(m, s) for m, s in zip(multiplier, shift, strict=True))
    return w.add(ops.Concat(terms, axis, lo, hi), channels, dtype)


def factors(w: Writer, o: Operator) -> tuple[list[int], list[int]]:
    """Multipliers and shifts of a RESCALE that the IR has, too."""
    if o.attributes["input_unsigned"] or o.attributes["output_unsigned"]:
        raise LeftOutError("unsigned type")
    if o.attributes["rounding_mode"] != "SINGLE_ROUND":
        raise LeftOutError(f"{o.attributes['rounding_mode'].lower()}ing".replace("_", " "))
    w.require_zero_points(*o.inputs[3:])
    return w.value(o.inputs[1]).tolist(), w.value(o.inputs[2]).tolist()


def _add(w: Writer, o: Operator) -> str:
    dtype, lo, hi = w.range(o)
    negative = o.name == "SUB"
    terms = (TERM, ops.Term(TERM.multiplier, TERM.shift, negative))
    return w.add(ops.Add(terms, lo, hi), [w.tensor(name) for name in o.inputs[:2]], dtype)


def _mul(w: Writer, o: Operator) -> str:
    """A product of int32 tensors has its shift from TOSA; the others', which have none, are rescaled by 1."""
    dtype, lo, hi = w.range(o)
    shift = int(w.value(o.inputs[2])[0])
    if shift > 62:
        raise LeftOutError("shift of 63")
    factor = (1, shift) if w.program.tensors[o.inputs[0]].dtype == "int32" else ONE
    return w.add(ops.Mul(*factor, lo, hi), [w.tensor(name) for name in o.inputs[:2]], dtype)


def _concat(w: Writer, o: Operator) -> str:
    dtype, lo, hi = w.range(o)
    op = ops.Concat((ops.Term(*ONE),) * len(o.inputs), w.layout.axis(o.attributes["axis"]), lo, hi)
    return w.add(op, [w.tensor(name) for name in o.inputs], dtype)


def _pad(w: Writer, o: Operator) -> str:
    name, shape = w.tensor(o.inputs[0]), list(w.program.tensors[o.inputs[0]].shape)
    value = int(w.value(o.inputs[2])[0])
    for axis, (before, after) in enumerate(w.value(o.inputs[1]).reshape(-1, 2).tolist()):
        rows = (1, math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        name = w.add(ops.Pad((before, 0, after, 0), value), [w.add(ops.Reshape(rows), [name])])
        shape[axis] += before + after
    return w.add(ops.Reshape((1, *shape)), [name])


def _slice(w: Writer, o: Operator) -> str:
    name = w.tensor(o.inputs[0])
    starts, sizes = w.value(o.inputs[1]).tolist(), w.value(o.inputs[2]).tolist()
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        name = w.add(ops.Slice(w.layout.axis(axis), start, start + size), [name])
    return name


def _table(w: Writer, o: Operator) -> str:
    """TOSA leaves an interpolated int16 result with its 7 fractional bits."""
    table = w.value(o.inputs[1])
    return w.add(ops.Table(table, "", 7 if table.size == 256 else 0), [w.tensor(o.inputs[0])], w.range(o)[0])


def _clamp(w: Writer, o: Operator) -> str:
    return w.add(ops.Clamp(*clamp_bounds(w, o)), [w.tensor(o.inputs[0])])


def clamp_bounds(w: Writer, o: Operator) -> tuple[int, int]:
    """The bounds of a CLAMP, which TOSA stores as bytes."""
    size = np.dtype(w.range(o)[0]).itemsize
    lo, hi = (bytes(o.attributes[key][:size]) for key in ("min_val", "max_val"))
    return int.from_bytes(lo, "little", signed=True), int.from_bytes(hi, "little", signed=True)


def _reshape(w: Writer, o: Operator) -> str:
    return w.add(ops.Reshape(w.layout.shape(w.program.tensors[o.output].shape)), [w.tensor(o.inputs[0])])


def _transpose(w: Writer, o: Operator) -> str:
    permutation = (0, *(w.layout.axis(p) for p in o.attributes["perms"]))
    return w.add(ops.Transpose(permutation), [w.tensor(o.inputs[0])])


TRANSLATORS: dict[str, Callable[[Writer, Operator], str]] = {
    "RESCALE": _rescale,
    "CONV2D": _conv2d,
    "DEPTHWISE_CONV2D": _depthwise_conv2d,
    "TRANSPOSE_CONV2D": _transpose_conv2d,
    "AVG_POOL2D": _avg_pool2d,
    "MAX_POOL2D": _max_pool2d,
    "ADD": _add,
    "SUB": _add,
    "MUL": _mul,
    "CONCAT": _concat,
    "PAD": _pad,
    "SLICE": _slice,
    "TABLE": _table,
    "CLAMP": _clamp,
    "RESIZE": _resize,
    "RESHAPE": _reshape,
    "TRANSPOSE": _transpose,
}

_IMAGE_OPERATORS = frozenset({"CONV2D", "DEPTHWISE_CONV2D", "TRANSPOSE_CONV2D", "AVG_POOL2D", "MAX_POOL2D", "RESIZE"})
