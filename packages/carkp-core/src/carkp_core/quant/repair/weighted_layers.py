"""The layers that have weights, for passes that change them."""

from __future__ import annotations

from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.ops.conv_transpose import ConvTranspose2d
from carkp_core.quant.ops.convolution import Conv2d
from carkp_core.quant.ops.weighted import Weighted


def weighted(network: QuantizedNetwork, name: str) -> Weighted | None:
    """The convolution or transposed convolution that makes a tensor, or None."""
    layer = network.layer(name)
    return layer if isinstance(layer, (Conv2d, ConvTranspose2d)) else None


def shared_weights(network: QuantizedNetwork) -> set[str]:
    """Layers whose weights another layer has too: a module that the network uses twice."""
    users: dict[int, list[str]] = {}
    for step in network.steps:
        layer = weighted(network, step.name)
        if layer is not None:
            users.setdefault(id(layer.weight), []).append(step.name)
    return {name for names in users.values() if len(names) > 1 for name in names}
