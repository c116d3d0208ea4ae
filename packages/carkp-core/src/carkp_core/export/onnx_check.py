"""A QDQ export held against its integer model in ONNX Runtime, which is an optional package.

Two questions. *Per layer*, given the same integer inputs: a runtime computes in float32 and rounds half to even where
the IR computes exactly and rounds half up, so a layer may differ only where the exact value lies next to a tie, and
there by one step. *The whole network*: such steps travel on, so the elements that differ at the outputs are counted.

How near "next to" is, float32 decides: an int8 output, of 256 steps, is computed to 1e-4 of a step. An int16 output
has 256 times the steps in the same 24 bits, so there it is 256 times as many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import onnx
from attrs import frozen

from carkp_core.errors import ConfigError
from carkp_core.export.onnx_qdq import export_qdq
from carkp_core.ir import operators as ops
from carkp_core.ir import reference
from carkp_core.ir.arithmetic import dequantize
from carkp_core.ir.graph import Graph, GraphInput, Node
from carkp_core.ir.inputs import check_inputs

Array = npt.NDArray[Any]
Execute = Callable[[Mapping[str, Array]], Mapping[str, Array]]

#: How near to a tie, in steps, an exact value may lie for the runtime to choose the other side.
TIE_WIDTH = {"int8": 1e-4, "int16": 256e-4}
#: Fractional bits that the exact values are computed with beyond whole steps.
_EXTRA_BITS = 16
_UNBOUNDED = 1 << 60


@frozen
class LayerAgreement:
    """One layer in the runtime: elements, those that differ by a step beside a tie, and those that may not differ."""

    name: str
    kind: str
    elements: int
    beside_a_tie: int
    wrong: int


@frozen
class Agreement:
    """A whole network in the runtime: its output elements, and those that differ, over some images."""

    images: int
    elements: int
    differing: int
    beyond_one_step: int
    largest_steps: int

    def to_json(self) -> dict[str, int]:
        """The machine-readable form."""
        return {name: int(value) for name, value in attrs.asdict(self).items()}


def runtime_available() -> bool:
    """True when onnxruntime can be imported."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


def check_network(graph: Graph, model: onnx.ModelProto, inputs: Mapping[str, Array], execute: Execute) -> Agreement:
    """Run an export on integer inputs and count the output elements that differ from the integer model's.

    Parameters
    ----------
    graph:
        The integer model.
    model:
        Its export.
    inputs:
        Integer inputs [N, ...] by name.
    execute:
        The integer model's executor, or ``reference.execute`` of the graph.

    Raises
    ------
    ConfigError
        When onnxruntime is not installed.
    """
    run, types = _session(model), graph.types()
    expected = execute(inputs)
    count = len(next(iter(inputs.values())))
    differing = beyond = elements = largest = 0
    for index in range(count):
        floats = [dequantize(inputs[i.name][index : index + 1], i.type.scale) for i in graph.inputs]
        for name, got in zip(graph.outputs, run(floats), strict=True):
            steps = np.rint(got / np.float32(types[name].scale)).astype(np.int64)
            apart = np.abs(steps - expected[name][index : index + 1])
            differing, elements = differing + int((apart > 0).sum()), elements + apart.size
            beyond, largest = beyond + int((apart > 1).sum()), max(largest, int(apart.max(initial=0)))
    return Agreement(count, elements, differing, beyond, largest)


def check_layers(graph: Graph, inputs: Mapping[str, Array], opset: int | None = None) -> list[LayerAgreement]:
    """Run each layer alone, on the integers that the reference executor feeds it.

    Raises
    ------
    ConfigError
        When onnxruntime is not installed.
    """
    values = reference.execute(graph, inputs, [node.name for node in graph.nodes])
    values = {**values, **check_inputs(graph, inputs)[0]}
    return [_check_layer(node, graph, values, opset) for node in graph.nodes if not isinstance(node.op, ops.Constant)]


def _check_layer(node: Node, graph: Graph, values: Mapping[str, Array], opset: int | None) -> LayerAgreement:
    alone = layer_graph(node, graph)
    # Constants stand beside the images with N = 1; the layer's own batch is that of its output.
    count = len(values[node.name])
    fed = [values[declared.name] for declared in alone.inputs]
    run, scale = _session(export_qdq(alone, opset)), np.float32(node.type.scale)
    beside = wrong = 0
    for index in range(count):
        parts = [value[index : index + 1] if len(value) == count else value for value in fed]
        floats = [dequantize(part, i.type.scale) for part, i in zip(parts, alone.inputs, strict=True)]
        got = np.rint(run(floats)[0] / scale).astype(np.int64)
        expected = values[node.name][index : index + 1].astype(np.int64)
        different = got != expected
        if different.any():
            named = dict(zip((i.name for i in alone.inputs), parts, strict=True))
            exact = exact_values(node, tuple(named[name] for name in node.inputs))
            near = np.abs(exact - np.floor(exact) - 0.5) <= TIE_WIDTH[node.type.dtype]
            allowed = different & near & (np.abs(got - expected) == 1)
            beside, wrong = beside + int(allowed.sum()), wrong + int((different & ~allowed).sum())
    return LayerAgreement(node.name, node.op.kind, values[node.name].size, beside, wrong)


def layer_graph(node: Node, graph: Graph) -> Graph:
    """A graph of one node, whose inputs are the graph's."""
    types = graph.types()
    names = tuple(dict.fromkeys(node.inputs))
    return Graph(node.name, tuple(GraphInput(name, types[name]) for name in names), (node,), (node.name,))


def exact_values(node: Node, inputs: tuple[Array, ...]) -> npt.NDArray[np.float64]:
    """A node's output in steps before rounding and clamping, to 2**-15 of a step; moves and tables as they are."""
    op: Any = node.op
    if isinstance(op, ops.Add) or (isinstance(op, ops.Conv2d) and op.residual is not None):
        # The sum's own 15 fractional bits come after half a step is added: take the terms one by one.
        return _exact_sum(op, inputs)
    if not hasattr(op, "shift"):
        terms = getattr(op, "terms", None)
        if terms is None:
            return np.asarray(reference.execute_node(node, inputs), dtype=np.float64)
        # Concat: each input by its own rescale.
        parts = [np.ldexp(x.astype(np.float64) * t.multiplier, -t.shift) for x, t in zip(inputs, terms, strict=True)]
        return np.concatenate(parts, axis=op.axis)
    bits = max(0, min(_EXTRA_BITS, int(np.min(op.shift)) - 2))
    finer = attrs.evolve(op, shift=op.shift - bits, lo=-_UNBOUNDED, hi=_UNBOUNDED)
    wide = attrs.evolve(node, op=finer, type=attrs.evolve(node.type, dtype="int64"))
    return np.ldexp(reference.execute_node(wide, inputs).astype(np.float64), -bits)


def _exact_sum(op: Any, inputs: tuple[Array, ...]) -> npt.NDArray[np.float64]:
    def scaled(value: Array, multiplier: Any, shift: Any) -> Any:
        return np.ldexp(value.astype(np.float64) * multiplier, -np.asarray(shift))

    if isinstance(op, ops.Conv2d):
        assert op.residual is not None
        acc = reference.conv2d_accumulator(op, inputs[0])
        total = scaled(acc, op.multiplier.reshape(1, -1, 1, 1), op.shift.reshape(1, -1, 1, 1))
        terms, values = (op.residual,), inputs[1:]
    else:
        total, terms, values = 0.0, op.terms, inputs
    for term, value in zip(terms, values, strict=True):
        total = total + scaled(value, term.multiplier, term.shift) * (-1.0 if term.negative else 1.0)
    return np.asarray(total, dtype=np.float64)


def _session(model: onnx.ModelProto) -> Callable[[Sequence[Array]], list[Array]]:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            "the ONNX file cannot be checked without ONNX Runtime", remedy="pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    # Optimised, the runtime fuses layers and rounds elsewhere; this checks what the file says.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in model.graph.input]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))  # type: ignore[no-any-return]
