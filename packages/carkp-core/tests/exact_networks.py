"""Calibrate a small network, convert it, and count where it and its integer model differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from carkp_core.ir import reference
from carkp_core.ir.arithmetic import quantize
from carkp_core.ir.graph import Graph
from carkp_core.quant.convert import convert
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.prepare import prepare


def calibrated(net: nn.Module, x: Tensor, dtypes: dict[str, str] | None = None, **kwargs: Any) -> QuantizedNetwork:
    """A network prepared for the first sample of ``x`` and calibrated with all of it."""
    network = prepare(net.eval(), {"img": x[:1]}, **kwargs).eval()
    for name, dtype in (dtypes or {}).items():
        network.layer(name).dtype = dtype
    network.start_observing()
    network(x)
    network.finish_observing()
    return network


def differing(network: QuantizedNetwork, graph: Graph, x: Tensor) -> dict[str, int]:
    """Differing elements of every tensor."""
    names = [node.name for node in graph.nodes]
    declared = graph.inputs[0].type
    integers = quantize(x.numpy(), declared.scale, declared.dtype)
    expected = reference.execute(graph, {"img": integers}, names)
    with torch.no_grad():
        got = network.integer_values([x], names)
    counts = {name: int((got[name].values.numpy() != expected[name]).sum()) for name in names}
    return {name: count for name, count in counts.items() if count}


def assert_exact(net: nn.Module, x: Tensor, **kwargs: Any) -> Graph:
    """The integer model, once every tensor of it equals the calibrated network's, on values beyond the calibrated."""
    network = calibrated(net, x, **kwargs)
    graph = convert(network, "net")
    assert differing(network, graph, x * 1.3) == {}
    return graph
