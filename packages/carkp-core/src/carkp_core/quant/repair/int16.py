"""Int16 for chosen tensors: 256 times finer steps where 8 bits are not enough.

It isn't free. The tensor takes twice the memory, and a convolution that reads it must keep its sum inside int32: with
inputs to 32767, a row of weights may sum to 2**31 / 2**15 = 65,536 steps, so wide rows get fewer of them ("weight
bits", ``docs/quantization.md``). Tensors with few readers and narrow rows, and the network's outputs, gain most.

Clipping is what hurts an int16 tensor, not the size of its steps: its range is the greatest value that was seen and a
quarter more, at the least the calibrated range.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from carkp_core.backend import NpuBackend
from carkp_core.context import Context
from carkp_core.errors import CarkpError, ConfigError
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.quant.constants import WEIGHT_LIMIT, safe_scale
from carkp_core.quant.convert import convert
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.ops.weighted import Weighted
from carkp_core.quant.repair.ranges import portions
from carkp_core.quant.repair.repair import InputBatch, matching_layers, note, nothing_usable
from carkp_core.quant.scales import HEADROOM
from carkp_core.quant.types import deciding, set_types

#: Fewer lost weight bits than this are not worth a line.
LEAST_BITS = 1e-3
#: So many refusals of the march are in the line; the report has all.
TOLD_REFUSALS = 3


class Int16:
    """Make chosen tensors int16.

    Parameters
    ----------
    tensors:
        Patterns of layers' module paths, such as ``decode_head.*`` or ``*.project.conv``: their outputs become int16. A
        table or a move has the type of what it reads, so there the layer before it does.
    outputs:
        The network's outputs become int16.
    context:
        Whose backend is asked whether the march runs it, where one is installed. A refusal is said, not an error: the
        integer model runs all the same.

    Raises
    ------
    ConfigError
        Nothing is chosen; in calibration, a pattern that no layer matches, or only such as have an input's type.
    """

    def __init__(self, tensors: Sequence[str] = (), outputs: bool = False, *, context: Context | None = None) -> None:
        self.tensors = (tensors,) if isinstance(tensors, str) else tuple(tensors)
        self.outputs, self.context = outputs, context
        if not self.tensors and not outputs:
            raise ConfigError("Int16: nothing is chosen", allowed="tensors=['decode_head.*'], outputs=True, or both")

    def before_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Change the types, so that observers choose ranges for them."""
        chosen = self._chosen(network)
        set_types(network, dict.fromkeys(chosen, "int16"))

    def after_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Widen the ranges, and say what it costs."""
        chosen = self._chosen(network)
        widen(network, chosen, greatest_values(network, batches, chosen))
        lost = weight_bits_lost(network, batches[0])
        refused = self._refused(network, chosen)
        summary = f"{len(chosen)} tensors; {len(lost)} layers that read them lose weight bits"
        if refused and self.context is not None:
            told = "; ".join(refused[:TOLD_REFUSALS]) + ("; ..." if len(refused) > TOLD_REFUSALS else "")
            summary += f"; warning: march {self.context.march} refuses {told}"
        note(network, self, summary, {"tensors": chosen, "weight_bits_lost": lost, "refused_by_march": refused})

    def _refused(self, network: QuantizedNetwork, chosen: Sequence[str]) -> list[str]:
        """What the march has against these tensors' type, and would not have against int8."""
        backend = self.context.backend_or_none() if self.context is not None else None
        if self.context is None or backend is None:
            return []
        wide = copy.deepcopy(network).cpu()
        found = _refusals(backend, wide, self.context.march)
        if not found:
            return []
        set_types(wide, dict.fromkeys(chosen, "int8"))
        for name in chosen:
            layer: Any = wide.layer(name)
            layer.scale.data.mul_(INT_RANGE["int16"][1] / INT_RANGE["int8"][1])
        anyway = _refusals(backend, wide, self.context.march)
        return [said for said in found if said not in anyway]

    def _chosen(self, network: QuantizedNetwork) -> list[str]:
        asked = {"outputs=True": list(network.output_names)} if self.outputs else {}
        asked |= {repr(pattern): matching_layers(network, pattern, "Int16") for pattern in self.tensors}
        chosen: list[str] = []
        for said, names in asked.items():
            found = [name for name in (deciding(network, name) for name in names) if name not in network.inputs]
            if not found:
                why = {name: f"has the type of the input {deciding(network, name)}" for name in names}
                usable = dict.fromkeys(deciding(network, step.name) for step in network.steps)
                raise nothing_usable("Int16", said, why, [name for name in usable if name not in network.inputs])
            chosen += found
        return list(dict.fromkeys(chosen))


def _refusals(backend: NpuBackend, network: QuantizedNetwork, march: str) -> list[str]:
    """``node: rule`` of each refusal of the checker; none where the network does not convert, which is said later."""
    try:
        graph = convert(network, "trial", allow_unknown=True)
    except CarkpError:
        return []
    report = backend.check(graph, march)
    broken = {violation.node for violation in report.violations}
    off = [f"{v.node}: not on the NPU" for v in report.nodes if v.verdict != "NPU" and v.node not in broken]
    return list(dict.fromkeys([*(f"{v.node}: {v.rule}" for v in report.violations), *off]))


def greatest_values(network: QuantizedNetwork, batches: Sequence[InputBatch], names: Iterable[str]) -> dict[str, float]:
    """The greatest magnitude of each tensor in the float network."""
    found = dict.fromkeys(names, 0.0)

    def look(name: str, values: Tensor) -> None:
        if name in found:
            found[name] = max(found[name], float(values.abs().max()))

    with torch.no_grad():
        for images in portions(batches):
            network.float_values(images, look)
    return found


def widen(network: QuantizedNetwork, names: Iterable[str], greatest: Mapping[str, float]) -> None:
    """Let int16 tensors reach beyond what was seen."""
    for name in names:
        layer: Any = network.layer(name)
        reach = max(layer.wanted_scale() * INT_RANGE["int16"][1], HEADROOM * greatest[name])
        layer.scale.fill_(safe_scale(reach, "int16"))


def weight_bits_lost(network: QuantizedNetwork, images: InputBatch) -> dict[str, float]:
    """For each layer with an int16 input: by how many bits its rows' steps are coarser than with int8, on average."""
    names = [*network.inputs, *(step.name for step in network.steps)]
    lost = {}
    with torch.no_grad():
        values = network.integer_values(tuple(image[:1] for image in images), names)
        for step in network.steps:
            layer = network.layer(step.name)
            given = [values[name] for name in step.inputs]
            if not isinstance(layer, Weighted) or given[0].dtype != "int16":
                continue
            steps = layer.constants(*given).scale_w
            plain = layer.rows(layer.folded()[0]).abs().amax(dim=1).double() / WEIGHT_LIMIT
            bits = torch.log2((steps[plain > 0] / plain[plain > 0]).clamp_min(1.0))
            mean = float(bits.mean()) if len(bits) else 0.0
            if mean > LEAST_BITS:
                lost[step.name] = round(mean, 3)
    return lost
