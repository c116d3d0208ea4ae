"""One-dimensional forms [N, C, L]: the two-dimensional operator on [N, C, 1, L]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

from carkp_core.quant.layer import origin_of
from carkp_core.quant.operators import Call, OperatorDefinition, is_constant, is_tensor
from carkp_core.quant.ops.adaptive import ADAPTIVE_AVG, ADAPTIVE_MAX
from carkp_core.quant.ops.convolution import CONV2D
from carkp_core.quant.ops.move import Reshape
from carkp_core.quant.ops.pooling import AVG_POOL, MAX_POOL


def _on_a_row(definition: OperatorDefinition, flat: Mapping[str, Any]) -> Callable[[Call], fx.Node | None]:
    """Lower with a definition for maps; ``flat`` names the arguments of the length and their values across it."""

    def lower(call: Call) -> fx.Node | None:
        x: fx.Node = call.args["input"]
        if not is_tensor(x) or not call.batched(x) or len(call.shape_of(x)) != 3 or not isinstance(call.shape, tuple):
            return None
        n, channels, length = call.shape_of(x)
        row = call.emit(Reshape((channels, 1, length)), x, shape=(n, channels, 1, length))
        args = {name: _pair(call.args[name], across) for name, across in flat.items()}
        out, size = call.shape[1:]
        y = definition.lower(call.evolve(input=row, **args).with_shape((n, out, 1, size)))
        return call.emit(Reshape((out, size)), y) if isinstance(y, fx.Node) else None

    return lower


def _pair(value: Any, across: int) -> Any:
    if isinstance(value, (list, tuple)):
        return (across, *value) if value else value
    return (across, value) if isinstance(value, int) else value


def _lower_conv1d(call: Call) -> fx.Node | None:
    weight, bias = call.args["weight"], call.args["bias"]
    if not is_constant(weight):
        return None
    y = _on_a_row(CONV2D, {"stride": 1, "padding": 0, "dilation": 1})(call.evolve(weight=weight[:, :, None]))
    if y is not None:
        (conv,) = (call.layers.layer(node) for node in call.layers.sources(y))
        assert conv is not None
        conv.origin = origin_of(weight, bias)
    return y


_ALONG = {"kernel_size": 1, "stride": 1, "padding": 0}
CONV1D = OperatorDefinition("conv1d", _lower_conv1d, calls=("conv1d",), parameters=CONV2D.parameters)
MAX_POOL1D = OperatorDefinition(
    "max_pool1d",
    _on_a_row(MAX_POOL, {**_ALONG, "dilation": 1}),
    calls=("max_pool1d",),
    parameters=MAX_POOL.parameters,
)
AVG_POOL1D = OperatorDefinition(
    "avg_pool1d", _on_a_row(AVG_POOL, _ALONG), calls=("avg_pool1d",), parameters=AVG_POOL.parameters
)
ADAPTIVE_AVG1D = OperatorDefinition(
    "adaptive_avg_pool1d",
    _on_a_row(ADAPTIVE_AVG, {}),
    calls=("adaptive_avg_pool1d",),
    parameters=ADAPTIVE_AVG.parameters,
)
ADAPTIVE_MAX1D = OperatorDefinition(
    "adaptive_max_pool1d",
    _on_a_row(ADAPTIVE_MAX, {}),
    calls=("adaptive_max_pool1d",),
    parameters=ADAPTIVE_MAX.parameters,
)
