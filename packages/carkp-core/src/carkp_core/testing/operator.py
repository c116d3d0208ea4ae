"""`check_operator`: does an operator from outside mean the same in float, in integers, in files and on NPUs?"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from carkp_core.context import Context
from carkp_core.ir import operators as ir
from carkp_core.ir import reference
from carkp_core.ir.arithmetic import dequantize, quantize
from carkp_core.ir.binary import from_bytes, to_bytes
from carkp_core.ir.graph import Graph
from carkp_core.plugins import PluginManager
from carkp_core.testing.findings import Findings
from carkp_core.testing.integers import BIT_EQUAL, check_on_march, images, plain_context


def check_operator(
    name: str,
    network: nn.Module,
    example_inputs: Mapping[str, Tensor],
    marches: Sequence[str] = (),
    plugins: PluginManager | None = None,
) -> Graph:
    """Hold a registered operator to all that carkp asks of one, inside a small network that uses it.

    Its pattern is found and its layers give what the network gives; the calibrated network and the integer model agree
    to the last bit for any batch; the integer model survives its file; the operator can be written as ONNX; and each of
    ``marches`` runs it.

    Parameters
    ----------
    name:
        What the plugin's ``carkp_operators`` calls it.
    network:
        A network that calls it.
    example_inputs:
        One tensor (1, ...) for each input, by name.
    marches:
        Marches that must run the network.
    plugins:
        By default the installed ones.

    Returns
    -------
    Graph
        The integer model.

    Raises
    ------
    CheckFailed
        With every finding.
    """
    found = Findings(f"operator {name!r}")
    context = plain_context(next(iter(marches), ""), plugins)
    definitions = _definitions(found, name, context)
    found.raise_if_any()
    graph = None
    with found.step("quantizing", "a pattern must be recognised before it can be computed", "see the message"):
        graph = _integer_model(found, network, example_inputs, context)
    found.raise_if_any()
    assert graph is not None
    operations = tuple(kind for definition in definitions for kind in definition.operations)
    if operations:
        kinds = {kind.kind for kind in operations}
        used = {node.op.kind for node in graph.nodes}
        found.expect(
            bool(kinds & used), f"the network became {', '.join(sorted(used))}; none of {', '.join(sorted(kinds))}",
            "the operator's pattern was not met, or another plugin took the call",
            "check `calls`, `modules` and `parameters`, and that `lower` does not decline",
        )  # fmt: skip
    with found.step("the binary form", "int_infer's model is read back from a file", "list the IR operators' classes"):
        again = from_bytes(to_bytes(graph), (*ir.OPERATIONS, *operations))
        found.expect(
            again.digest() == graph.digest(), "the integer model read back is another", "fields were lost",
            "use only integers, strings, None, arrays, Term and tuples of these as fields",
        )  # fmt: skip
    with found.step("ONNX", "models leave carkp as ONNX", "implement `to_onnx` of the layer and of the IR operator"):
        _check_onnx(found, network, example_inputs, graph, context)
    for march in marches:
        with found.step(f"march {march}", "it was asked to run the operator", "see the message"):
            check_on_march(found, graph, plain_context(march, plugins).backend(), march)
    found.raise_if_any()
    return graph


def _definitions(found: Findings, name: str, context: Context) -> tuple[Any, ...]:
    records = [record for record in context.plugins.operators() if record.name == name]
    found.expect(
        len(records) == 1, f"{len(records)} plugins offer an operator {name!r}",
        "operators are found by the hook carkp_operators", "install the package; give the operator a name of its own",
    )  # fmt: skip
    loaded: list[Any] = []
    for record in records:
        with found.step(f"importing {record.load}", "it is imported when a graph is quantized", "correct the path"):
            made = record.resolve()
            loaded.extend(made if isinstance(made, (tuple, list)) else (made,))
    return tuple(loaded)


def _integer_model(found: Findings, network: nn.Module, example: Mapping[str, Tensor], context: Context) -> Graph:
    """Calibrate on random images, convert, and hold the calibrated network to the reference executor."""
    from carkp_core.quant.convert import convert
    from carkp_core.quant.prepare import prepare

    prepared = prepare(network.eval(), example, context=context).eval()
    opaque = prepared.opaque_layers()
    for label, layer in opaque.items():
        found.add(
            f"{getattr(layer, 'target', label)} at {layer.source or label} is recognised by no operator",
            "without integer form there is no integer model", "check `calls`, `modules` and `parameters`",
        )  # fmt: skip
    found.raise_if_any()
    batch = images(example, 3)
    prepared.start_observing()
    prepared(*batch)
    prepared.finish_observing()
    graph = convert(prepared, "check", example)
    names = [node.name for node in graph.nodes]
    integers = {
        declared.name: quantize(x.numpy(), declared.type.scale, declared.type.dtype)
        for declared, x in zip(graph.inputs, batch, strict=True)
    }
    expected = reference.execute(graph, integers, names)
    with torch.no_grad():
        got = prepared.integer_values(batch, names)
    for node in graph.nodes:
        differ = int((got[node.name].values.numpy() != expected[node.name]).sum())
        found.expect(
            differ == 0, f"{node.name} ({node.op.kind}): layer and integer operator differ in {differ} elements",
            BIT_EQUAL, "make `integer_forward` compute what `execute` does, from the same multipliers",
        )  # fmt: skip
    return graph


def _check_onnx(
    found: Findings, network: nn.Module, example: Mapping[str, Tensor], graph: Graph, context: Context
) -> None:
    """Write both forms; where ONNX Runtime is installed, hold its numbers to carkp's."""
    from carkp_core.export.onnx_float import export_float
    from carkp_core.export.onnx_qdq import export_qdq

    model, integer_model = export_float(network.eval(), example, context=context), export_qdq(graph)
    if importlib.util.find_spec("onnxruntime") is None:
        return
    batch = images(example, 1)
    with torch.no_grad():
        answer = network(*batch)
    outputs = list(answer) if isinstance(answer, (list, tuple)) else [answer]
    for index, (want, got) in enumerate(zip(outputs, _run(model, list(example), batch), strict=True)):
        found.expect(
            bool(np.allclose(want.numpy(), got, rtol=1e-3, atol=1e-4)),
            f"output {index} of the float ONNX model differs by {float(np.abs(want.numpy() - got).max()):.3g}",
            "ONNX is the float network, operator by operator", "correct the layer's `to_onnx`",
        )  # fmt: skip
    names = [declared.name for declared in graph.inputs]
    integers = {
        declared.name: quantize(x.numpy(), declared.type.scale, declared.type.dtype)
        for declared, x in zip(graph.inputs, batch, strict=True)
    }
    expected, types = reference.execute(graph, integers), graph.types()
    for name, got in zip(graph.outputs, _run(integer_model, names, batch), strict=True):
        steps = np.abs(got - dequantize(expected[name], types[name].scale)) / types[name].scale
        found.expect(
            float(steps.max()) <= 3.0, f"{name} of the QDQ ONNX model is off by {float(steps.max()):.1f} steps",
            "layers may differ by one step beside a tie, not by more", "correct the IR operator's `to_onnx`",
        )  # fmt: skip


def _run(model: Any, names: list[str], batch: list[Tensor]) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answer: list[Any] = session.run(None, {name: x.numpy() for name, x in zip(names, batch, strict=True)})
    return answer
