"""ONNX's backend node tests of the operators that the exporters write, as plain values."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]

#: What ``export_float`` and ``export_qdq`` write, with all that their functions are made of.
WRITTEN = (
    *(
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "AveragePool",
        "Resize",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Concat",
        "Slice",
        "Pad",
    ),
    *("Reshape", "Transpose", "Relu", "Clip", "Min", "Max", "PRelu", "QuantizeLinear", "DequantizeLinear", "Cast"),
    *("Gather", "Identity", "Neg", "Sigmoid", "Tanh", "HardSigmoid", "LeakyRelu", "Elu", "Celu", "Selu", "Softplus"),
    *("Softsign", "Shrink", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Erf", "Sin", "Cos", "Floor", "Ceil", "Round"),
    *("Sign", "Pow", "Greater", "Where"),
)


class LeftOutError(Exception):
    """The exporters never write a node like this; the message is the reason."""


@frozen(eq=False)
class NodeTest:
    """One node, its inputs in the operator's order (None where it has none), and the output that ONNX states."""

    name: str
    op_type: str
    attributes: dict[str, Any]
    inputs: tuple[Array | None, ...]
    expected: Array
    tolerance: tuple[float, float]
    model: Any
    #: The model's inputs by name.
    feeds: dict[str, Array]

    def input(self, index: int) -> Array | None:
        """An input, None where the node has none there."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensor(self, index: int = 0) -> Array:
        """An input of float numbers, of which the exporters' graphs are made."""
        value = self.input(index)
        if value is None or value.dtype != np.float32:
            raise LeftOutError("another type than float32")
        if 0 in value.shape:
            raise LeftOutError("an empty tensor")
        return value


@frozen
class Window:
    """A sliding window over H and W, automatic padding worked out."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding_tlbr: tuple[int, int, int, int]
    ceil: bool

    @property
    def symmetric(self) -> bool:
        """As torch has it."""
        top, left, bottom, right = self.padding_tlbr
        return (top, left) == (bottom, right)


def node_tests() -> Iterator[NodeTest]:
    """Every test of one node whose operator the exporters write and whose values are plain arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about the infinities that some tests are made of
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in WRITTEN:
            continue
        inputs, outputs = ([_array(value) for value in values] for values in case.data_sets[0])
        # Neither sequences nor the small floating-point types that numpy does not have.
        if any(value.dtype.char not in np.typecodes["All"] or value.dtype == object for value in (*inputs, *outputs)):
            continue
        feeds = {info.name: value for info, value in zip(case.model.graph.input, inputs, strict=True)}
        yield NodeTest(
            case.name.removeprefix("test_"),
            nodes[0].op_type,
            {attribute.name: _plain(helper.get_attribute_value(attribute)) for attribute in nodes[0].attribute},
            tuple(feeds.get(name) for name in nodes[0].input),
            outputs[0],
            (case.rtol, case.atol),
            case.model,
            feeds,
        )


def window(test: NodeTest, kernel: tuple[int, ...]) -> Window:
    """The geometry of a convolution or a pool of two dimensions."""
    if len(kernel) != 2:
        raise LeftOutError(f"{len(kernel)}-d")
    attributes = test.attributes
    stride, dilation = (tuple(attributes.get(key, (1, 1))) for key in ("strides", "dilations"))
    pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
    automatic = attributes.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same(test.tensor().shape[2:], kernel, stride, dilation, automatic == "SAME_LOWER")
    return Window((kernel[0], kernel[1]), stride, dilation, pads, bool(attributes.get("ceil_mode", 0)))


def _same(size: Any, kernel: Any, stride: Any, dilation: Any, lower: bool) -> tuple[int, int, int, int]:
    """Padding with which an output has the input's size over the stride, the odd one before or after."""
    first, last = [], []
    for axis in (0, 1):
        span = dilation[axis] * (kernel[axis] - 1) + 1
        total = max((-(-size[axis] // stride[axis]) - 1) * stride[axis] + span - size[axis], 0)
        before = -(-total // 2) if lower else total // 2
        first.append(before)
        last.append(total - before)
    return (first[0], first[1], last[0], last[1])


def _array(value: Any) -> Array:
    """A tensor's values; sequences and absent values become an array of objects."""
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else np.empty(0, dtype=object)


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
