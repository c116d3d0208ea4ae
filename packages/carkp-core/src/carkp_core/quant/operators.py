"""How an operator is taught: the record's ``load`` names an ``OperatorDefinition`` made from these parts.

A definition says which torch calls (by name: ``F.relu``, ``torch.relu``, ``x.relu()`` and ``x.relu_()`` are all "relu")
or which module classes it recognises, and lowers a call to layers::

    class HardSwish(Layer): ...                                     # float and integer meaning, IR operator

    def lower(call: Call) -> fx.Node | None:
        return call.emit(HardSwish(), call.args["input"])

    HARD_SWISH = OperatorDefinition("hard_swish", calls=("hardswish",), parameters=("input",), lower=lower)

``lower`` returns None to decline (another definition is asked, at last the call becomes ``Opaque``).
Shapes have N = 2 while lowering (``trace.TRACE_BATCH``); layers must not depend on it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from attrs import field, frozen
from torch import Tensor, fx, nn

from carkp_core.ir.graph import Operation, Source
from carkp_core.quant.graph import LayerGraph
from carkp_core.quant.layer import Layer

#: One layer's node, one for each of several results (None for one that has no integer form), or None to decline.
Lowered = fx.Node | Sequence[fx.Node | None] | None


@frozen(eq=False)
class OperatorDefinition:
    """One operator: what it recognises and how it becomes layers.

    Parameters
    ----------
    name:
        Unique among all plugins.
    calls:
        Names of torch functions and tensor methods, without underscores at either end.
    modules:
        Module classes (or their qualified names) that are kept whole.
    parameters:
        The call's parameters in order, ``name`` or ``name=default literal``; ``*name`` takes the rest.
        A module's are those of its ``forward``.
    lower:
        Makes the layers.
    operations:
        IR operators of the plugin's own, so that integer models with them can be read.
    """

    name: str
    lower: Callable[[Call], Lowered]
    calls: tuple[str, ...] = ()
    modules: tuple[type[nn.Module] | str, ...] = ()
    parameters: tuple[str, ...] = ()
    operations: tuple[type[Operation], ...] = ()

    def recognises(self, module: nn.Module) -> bool:
        """True for modules to be kept whole."""
        names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__}
        return any((m in names) if isinstance(m, str) else isinstance(module, m) for m in self.modules)


@frozen(eq=False)
class Call:
    """One traced call, seen by the definition that lowers it.

    ``args`` holds the arguments by parameter name. Tensors that depend on the input are ``fx.Node``s of the layer
    graph (shapes by ``shape_of``), weights and constants are ``torch.Tensor``s.
    """

    layers: LayerGraph
    name: str
    args: Mapping[str, Any]
    source: Source
    #: Shape of the result, or of each of several results, with N = 2.
    shape: Any
    module: nn.Module | None = None
    #: Further layers of one call are named by counting.
    counter: list[int] = field(factory=lambda: [0])

    def emit(self, layer: Layer, *inputs: fx.Node, shape: Sequence[int] | None = None) -> fx.Node:
        """Add a layer; its result has the call's shape unless another is given."""
        self.counter[0] += 1
        return self.layers.add(layer, inputs, self.name, self.source, tuple(self.shape if shape is None else shape))

    def shape_of(self, node: fx.Node) -> tuple[int, ...]:
        """Shape with N = 2."""
        return tuple(node.meta["shape"])

    def batched(self, *nodes: fx.Node) -> bool:
        """True when the first dimension of each is the batch."""
        return all(len(n.meta["shape"]) > 0 and n.meta["shape"][0] == self.layers.batch for n in nodes)

    def with_shape(self, shape: Sequence[int]) -> Call:
        """The call with another result: one of several."""
        return attrs.evolve(self, shape=tuple(shape))

    def evolve(self, **changes: Any) -> Call:
        """The call with other arguments."""
        return attrs.evolve(self, args={**self.args, **changes})


def bind(parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments by name, defaults filled in; None when they do not fit.

    >>> bind(("input", "dim=-1"), ("x",), {})
    {'input': 'x', 'dim': -1}
    """
    bound = _signature(tuple(parameters))
    known = {name: value for name, value in kwargs.items() if name in bound.parameters}
    try:
        result = bound.bind(*args, **known)
    except TypeError:
        return None
    result.apply_defaults()
    return dict(result.arguments)


def _signature(parameters: tuple[str, ...]) -> inspect.Signature:
    made = []
    for text in parameters:
        name, has_default, default = text.partition("=")
        if name.startswith("*"):
            made.append(inspect.Parameter(name[1:], inspect.Parameter.VAR_POSITIONAL))
            continue
        value = _literal(default) if has_default else inspect.Parameter.empty
        made.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value))
    return inspect.Signature(made)


def _literal(text: str) -> Any:
    import ast

    return ast.literal_eval(text)


def is_tensor(value: Any) -> bool:
    """A tensor that depends on the input (a node of the layer graph)."""
    return isinstance(value, fx.Node)


def is_constant(value: Any) -> bool:
    """A weight or constant."""
    return isinstance(value, Tensor)


def is_number(value: Any) -> bool:
    """A Python number, or a constant with one element."""
    return isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1)
