"""Lower: every traced call becomes layers, found by the operator definitions.

Before (functions, weights apart)::           After (layers that hold their weights)::

    stem_weight = get_attr                        stem   = Conv2d(img)
    conv2d = torch.conv2d(img, stem_weight)       bn     = BatchNorm(stem)
    bn = F.batch_norm(conv2d, mean, var, ...)     relu   = Clamp(bn)
    relu = F.relu(bn)

A call that no definition takes becomes ``Opaque``, and so does one on tensors that mix the samples of a batch. Lowering
keeps the float function; ``prepare`` holds the result against what the network returned.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from carkp_core.errors import QuantizationError
from carkp_core.ir.graph import Operation
from carkp_core.quant.graph import LayerGraph
from carkp_core.quant.operator_list import OPERATORS
from carkp_core.quant.operators import Call, OperatorDefinition, bind
from carkp_core.quant.ops.opaque import make_opaque
from carkp_core.quant.trace import TRACE_BATCH, Trace


def definitions(context: Any = None) -> tuple[OperatorDefinition, ...]:
    """All operator definitions: those that plugins offer (core's among them), or core's alone without a context."""
    records = OPERATORS if context is None else (context.plugins.operators() or OPERATORS)
    found: list[OperatorDefinition] = []
    for record in records:
        loaded = record.resolve()
        found.extend(loaded if isinstance(loaded, (tuple, list)) else (loaded,))
    # Plugins come first, so that they may take a call from core.
    core = {record.load for record in OPERATORS}
    if any(record.load not in core for record in records):
        own = [d for record in OPERATORS for d in _as_tuple(record.resolve())]
        found = [d for d in found if d not in own] + [d for d in found if d in own]
    return tuple(found)


def operations(context: Any) -> tuple[type[Operation], ...]:
    """The IR operators that plugins add to core's, for reading integer models."""
    return tuple(dict.fromkeys(kind for definition in definitions(context) for kind in definition.operations))


def lower(trace: Trace, known: Sequence[OperatorDefinition]) -> LayerGraph:
    """The layer graph of a traced network."""
    layers = LayerGraph(TRACE_BATCH)
    by_call: dict[str, list[OperatorDefinition]] = {}
    for definition in known:
        for name in definition.calls:
            by_call.setdefault(name, []).append(definition)
    values: dict[fx.Node, Any] = {}
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            values[node] = layers.add_input(node.target, node.meta["value"].shape)
        elif node.op == "get_attr":
            values[node] = trace.tensors[node.target]
        elif node.op == "output":
            layers.graph.output(fx.node.map_arg(node.args[0], lambda n: _output(values[n])))
        elif node.target is operator.getitem and isinstance(values[node.args[0]], _Parts):
            values[node] = values[node.args[0]].part(node.args[1])
        else:
            values[node] = _lower_call(layers, trace, node, by_call, known, values)
    layers.sweep()
    return layers


class _Parts:
    """Several results of one call; opaque ones are made when they are taken."""

    def __init__(self, parts: Sequence[Any] | None, make: Callable[[int], Any]) -> None:
        self._parts, self._make = parts, make

    def part(self, index: int) -> Any:
        made = None if self._parts is None else self._parts[index]
        return self._make(index) if made is None else made


def _lower_call(
    layers: LayerGraph,
    trace: Trace,
    node: fx.Node,
    by_call: dict[str, list[OperatorDefinition]],
    known: Sequence[OperatorDefinition],
    values: dict[fx.Node, Any],
) -> Any:
    args, kwargs = fx.node.map_aggregate((node.args, node.kwargs), lambda a: values[a] if isinstance(a, fx.Node) else a)
    module = trace.modules.get(node.target) if isinstance(node.target, str) else None
    shape = _shape(node)
    given = _nodes((args, kwargs))
    if module is not None:
        candidates: Iterable[OperatorDefinition] = [d for d in known if d.recognises(module)]
    else:
        candidates = by_call.get(node.meta["name"], ())
    for definition in candidates:
        bound = bind(definition.parameters, args, kwargs)
        if bound is None:
            continue
        call = Call(layers, _name(node, module is not None), bound, node.meta["source"], shape, module)
        lowered = definition.lower(call)
        if lowered is not None and (lowered in given or call.batched(*given)):
            if not isinstance(lowered, (list, tuple)):
                return lowered
            rest = _opaque(layers, node, module if module is not None else node.target, args, kwargs, shape)
            return _Parts(lowered, rest.part)
    return _opaque(layers, node, module if module is not None else node.target, args, kwargs, shape)


def _opaque(layers: LayerGraph, node: fx.Node, function: Any, args: Any, kwargs: Any, shape: Any) -> Any:
    name, source = _name(node, isinstance(node.target, str)), node.meta["source"]

    def make(index: int | None, shape: Any) -> fx.Node:
        layer, inputs = make_opaque(function, args, kwargs, index)
        layer.result_dtype = _dtype(node, index)
        batched = bool(shape) and shape[0] == layers.batch
        layer.shape = (1, *shape[1:]) if batched else (1, *shape)
        made = layers.add(layer, inputs, name, source, shape)
        made.meta["dtype"] = layer.result_dtype
        return made

    if node.meta["value"] is None:
        return _Parts(None, lambda index: make(index, shape[index]))
    return make(None, shape)


def _nodes(value: Any) -> list[fx.Node]:
    """The tensors among a call's arguments that depend on the input."""
    found: list[fx.Node] = []
    fx.node.map_aggregate(value, lambda a: found.append(a) if isinstance(a, fx.Node) else None)
    return found


def _shape(node: fx.Node) -> Any:
    """The result's shape, or a list of shapes."""
    if node.meta["value"] is not None:
        return node.meta["value"].shape
    items = [user for user in node.users if user.target is operator.getitem and user.args[0] is node]
    shapes: dict[Any, Any] = {user.args[1]: user.meta["value"].shape for user in items}
    return [shapes[index] for index in sorted(shapes, key=int)]


def _dtype(node: fx.Node, index: int | None) -> torch.dtype:
    """The type of the result, or of one of several."""
    if index is None:
        return node.meta["value"].dtype  # type: ignore[no-any-return]
    (item,) = (user for user in node.users if user.target is operator.getitem and user.args == (node, index))
    return item.meta["value"].dtype  # type: ignore[no-any-return]


def _name(node: fx.Node, whole_module: bool) -> str:
    """The module's path where the call is all that a torch module does; else the path and the call."""
    path, name = str(node.meta["module_path"]), str(node.meta["name"])
    if whole_module or node.meta.get("module_is_torch"):
        return path or name
    return f"{path}.{name}" if path else name


def _output(value: Any) -> fx.Node:
    if isinstance(value, fx.Node):
        return value
    seen = "a constant" if isinstance(value, Tensor) else type(value).__name__
    raise QuantizationError(
        "an output of the network does not depend on its input",
        seen=seen,
        remedy="return only tensors that are computed from the input",
    )


def _as_tuple(loaded: Any) -> tuple[OperatorDefinition, ...]:
    return tuple(loaded) if isinstance(loaded, (tuple, list)) else (loaded,)
