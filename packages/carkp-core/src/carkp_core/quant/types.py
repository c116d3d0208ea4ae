"""The integer types of a network's tensors, after they were annotated: asked for, changed, kept in its state.

A move or a table has its input's type, so a type is decided by the layer before them that has a scale of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from carkp_core.quant.layer import Bounds, Layer
from carkp_core.quant.ops.table import Table

if TYPE_CHECKING:
    from carkp_core.quant.network import QuantizedNetwork


def inherits_type(layer: Layer) -> bool:
    """True for layers whose output has their first input's type."""
    return not layer.own_scale or isinstance(layer, Table)


def deciding(network: QuantizedNetwork, name: str) -> str:
    """The tensor whose type a tensor has: itself, or what it was moved or looked up from."""
    before = {step.name: step.inputs for step in network.steps}
    while name in before and before[name] and inherits_type(network.layer(name)):
        name = before[name][0]
    return name


def types(network: QuantizedNetwork) -> dict[str, str]:
    """The type of every tensor."""
    names = [*network.inputs, *(step.name for step in network.steps)]
    return {name: network.layer(name).dtype for name in names}


def set_types(network: QuantizedNetwork, wanted: Mapping[str, str]) -> None:
    """Change types of deciding tensors; what is moved or looked up from them follows. Scales are not touched."""
    found = types(network) | dict(wanted)
    for name in network.inputs:
        network.layer(name).dtype = found[name]
    for step in network.steps:
        layer = network.layer(step.name)
        if step.inputs and inherits_type(layer):
            found[step.name] = found[step.inputs[0]]
        layer.dtype = found[step.name]


def chosen_forms(network: QuantizedNetwork) -> dict[str, Any]:
    """What repairs may have changed of the layers beside their tensors, as plain values for the network's state."""
    return {
        "int16": [name for name, dtype in types(network).items() if dtype == "int16"],
        "unclamped": list(network.unclamped),
        "equalizations": list(network.equalizations),
    }


def take_forms(network: QuantizedNetwork, state: Mapping[str, Any]) -> None:
    """Take over what ``chosen_forms`` returned; a state that does not say it changes nothing."""
    if "int16" in state:
        set_types(network, {name: "int16" if name in state["int16"] else "int8" for name in types(network)})
    if "unclamped" in state:
        for name in [name for name in network.unclamped if name not in state["unclamped"]]:
            _clamp_again(network, name)
        for name in state["unclamped"]:
            unclamp(network, name)
    if "equalizations" in state:
        network.equalizations = list(state["equalizations"])


def unclamp(network: QuantizedNetwork, name: str) -> None:
    """Take the upper clamp off a layer, and remember it."""
    if name in network.unclamped:
        return
    layer = network.layer(name)
    layer.taken_high = layer.bounds.high
    layer.bounds = Bounds(layer.bounds.low, None)
    network.unclamped.append(name)


def _clamp_again(network: QuantizedNetwork, name: str) -> None:
    layer = network.layer(name)
    layer.bounds = Bounds(layer.bounds.low, layer.taken_high)
    layer.taken_high = None
    network.unclamped.remove(name)
