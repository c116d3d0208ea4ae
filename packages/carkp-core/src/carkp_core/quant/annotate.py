"""Annotate: choose each layer's integer type.

Before: every layer int8. After: the type that ``carkp_quant_scheme`` chooses (first answer wins), else the march's
backend, else int8. A move or a table has its input's type; the accumulator's inputs may be of either type.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from carkp_core.backend import QuantScheme
from carkp_core.errors import QuantizationError
from carkp_core.quant.graph import LayerGraph
from carkp_core.quant.ops.table import Table

TYPES = ("int8", "int16")


def annotate(layers: LayerGraph, context: Any = None) -> None:
    """Set every layer's output type."""
    types: dict[Any, str] = dict.fromkeys(layers.inputs, "int8")
    for node in layers:
        layer = layers.layer(node)
        assert layer is not None
        scheme = _scheme(node, context)
        if scheme.output_dtype not in TYPES:
            raise QuantizationError(
                "the quantization scheme asks for an unknown type",
                where=str(layer.source) or layer.label,
                seen=repr(scheme.output_dtype),
                allowed=", ".join(TYPES),
            )
        inherits = (not layer.own_scale and node.args) or isinstance(layer, Table)
        layer.dtype = types[node.args[0]] if inherits else scheme.output_dtype
        types[node] = layer.dtype
        node.meta["scheme"] = scheme


def _scheme(node: fx.Node, context: Any) -> QuantScheme:
    if context is None:
        return QuantScheme()
    chosen = context.hook.carkp_quant_scheme(node=node, march=context.march)
    if chosen is None:
        backend = context.backend_or_none()
        chosen = None if backend is None else backend.quant_scheme(node, context.march)
    return QuantScheme() if chosen is None else chosen
