"""Which channels of a network may be scaled without changing what it computes, and which must be scaled together.

Dividing a channel by s where it is made and multiplying by s where it is read changes nothing, as long as all between
is positively homogeneous, f(x / s) = f(x) / s: ReLU, pooling, resizing, moves, sums of channels with one s. So every
element of every tensor gets a *variable*. A weighted layer starts new ones, one for each output channel, and takes any
at its inputs, one for each input channel; sums and shared weights make variables one; what is not homogeneous (ReLU6, a
table, an output of the network) makes them ``FIXED``.

::

    conv a -> ReLU -> depthwise b -> ReLU -> conv c --+-- conv d        a, b: variables of their own
       |                                              |                 c and what it is added to: one for each channel
       +----------------------------------------------+

Legend: ``O`` output channels, ``I`` input channels of one group, ``taps`` kernel positions; ``rows`` [O, I, taps].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen
from torch import Tensor

from carkp_core.quant.layer import Bounds, Layer
from carkp_core.quant.network import QuantizedNetwork, Step
from carkp_core.quant.ops.concat import Concat
from carkp_core.quant.ops.conv_transpose import ConvTranspose2d
from carkp_core.quant.ops.convolution import Conv2d
from carkp_core.quant.ops.elementwise import Add, Mul
from carkp_core.quant.ops.move import Pad, Reshape, Slice, Transpose
from carkp_core.quant.ops.pooling import AvgPool, MaxPool
from carkp_core.quant.ops.resize import ResizeBilinear, ResizeNearest
from carkp_core.quant.ops.scaling import Scaled
from carkp_core.quant.ops.table import Clamp, Table
from carkp_core.quant.ops.weighted import Weighted

Ids = npt.NDArray[np.int64]

#: The variable of channels that keep their scale, and of elements that are 0 whatever the scale (padding).
FIXED, FREE = 0, -1

#: Tables of positively homogeneous functions, by operator name; ``affine`` without offset is another.
_HOMOGENEOUS = ("leaky_relu", "prelu", "abs", "neg")


@frozen(eq=False)
class WeightedScales:
    """One weighted layer: the variables of its input channels [O, I], or [1, I] without groups, and outputs [O]."""

    name: str
    layer: Weighted
    source: str
    inputs: Ids
    outputs: Ids

    def rows(self) -> npt.NDArray[np.float64]:
        """The float weights [O, I, taps], batch norm folded."""
        weight, _ = self.layer.folded()
        rows = self.layer.rows(weight).detach().double().cpu().numpy()
        return rows.reshape(len(rows), self.inputs.shape[1], -1)


@frozen(eq=False)
class ChannelScales:
    """The variables of a network: ``FIXED``, and 1 .. count - 1."""

    count: int
    weighted: tuple[WeightedScales, ...]
    #: Tensors with a scale of their own: the variable of each element, [1, ...].
    tensors: dict[str, Ids]
    #: Which variables those tensors have.
    present: dict[str, Ids]


def channel_scales(network: QuantizedNetwork, image: Sequence[Tensor]) -> ChannelScales:
    """Find the variables.

    Parameters
    ----------
    image:
        One sample of each input, (1, ...), for the shapes.
    """
    with torch.no_grad():
        shapes = {name: (1, *value.shape[1:]) for name, value in network.float_values(image, keep=True).items()}
    analysis = _Analysis(network, shapes)
    return analysis.result()


class _Analysis:
    def __init__(self, network: QuantizedNetwork, shapes: dict[str, tuple[int, ...]]) -> None:
        self._network, self._shapes = network, shapes
        self._parents = [FIXED]
        self._ids: dict[str, Tensor] = {name: self._fixed(name) for name in network.inputs}
        self._owners = {name: name for name in network.inputs}
        self._weighted: dict[str, tuple[Step, Weighted, Tensor, Tensor]] = {}
        self._shared: dict[int, tuple[Tensor, Tensor]] = {}
        for step in network.steps:
            layer = network.layer(step.name)
            self._ids[step.name] = self._through(step, layer)
            self._owners[step.name] = step.name if layer.own_scale or not step.inputs else self._owners[step.inputs[0]]
        for name in network.output_names:
            self._fix(self._ids[name])

    def result(self) -> ChannelScales:
        roots = sorted({self._root(variable) for variable in range(len(self._parents))})
        index = {root: position for position, root in enumerate(roots)}
        # FREE, as an index, is the last entry.
        number = np.array([index[self._root(variable)] for variable in range(len(self._parents))] + [FREE])
        weighted = tuple(
            WeightedScales(name, layer, self._owners[step.inputs[0]], number[inputs.numpy()], number[outputs.numpy()])
            for name, (step, layer, inputs, outputs) in self._weighted.items()
        )
        tensors = {name: number[self._ids[name].numpy()] for name, _ in self._network.scaled_layers()}
        return ChannelScales(len(roots), weighted, tensors, {name: np.unique(ids) for name, ids in tensors.items()})

    def _through(self, step: Step, layer: Layer) -> Tensor:
        given = [self._ids[name] for name in step.inputs]
        if isinstance(layer, (Conv2d, ConvTranspose2d)):
            return self._choose(step, layer, given) if _is_choice(layer) else self._weigh(step, layer, given)
        if not _homogeneous(layer.bounds):
            return self._barrier(step)
        if isinstance(layer, (Reshape, Transpose, Slice)):
            return layer.float_forward(given[0])
        if isinstance(layer, Pad) and layer.value == 0.0:
            top, left, bottom, right = layer.padding
            return torch.nn.functional.pad(given[0], (left, right, top, bottom), value=FREE)
        if isinstance(layer, (MaxPool, AvgPool, ResizeNearest, ResizeBilinear)):
            return self._channels(given[0]).reshape(1, -1, 1, 1).expand(self._shapes[step.name])
        if isinstance(layer, (Clamp, Scaled)) or (isinstance(layer, Table) and _homogeneous_table(layer)):
            return given[0]
        if isinstance(layer, Concat):
            return torch.cat(given, dim=layer.axis)
        if isinstance(layer, Add):
            return self._same(*given)
        if isinstance(layer, Mul):
            return self._product(step, *given)
        return self._barrier(step)

    def _weigh(self, step: Step, layer: Weighted, given: list[Tensor]) -> Tensor:
        """New variables for the outputs; layers with the same weights have the same ones."""
        inputs = self._channels(given[0])
        shared = self._shared.get(id(layer.weight))
        if shared is None:
            first = len(self._parents)
            outputs = torch.arange(first, first + layer.out_channels)
            self._parents.extend(range(first, first + layer.out_channels))
            self._shared[id(layer.weight)] = (inputs, outputs)
        else:
            self._same(inputs, shared[0])
            outputs = shared[1]
        columns = inputs.reshape(layer.groups, -1)
        if layer.groups > 1:
            columns = columns.repeat_interleave(layer.out_channels // layer.groups, dim=0)
        self._weighted[step.name] = (step, layer, columns, outputs)
        ids = outputs.reshape(1, -1, 1, 1).expand(self._shapes[step.name])
        if isinstance(layer, Conv2d) and layer.residual:
            ids = self._same(ids, given[1])
        no_scale = layer.bn is not None and layer.bn.weight is None
        if no_scale or not _homogeneous(layer.bounds):
            self._fix(ids)
        return ids

    def _choose(self, step: Step, layer: Weighted, given: list[Tensor]) -> Tensor:
        """A row that chooses or adds channels makes them one with its output; its weights stay as they are."""
        inputs = self._channels(given[0]).reshape(layer.groups, -1)
        columns = inputs.repeat_interleave(layer.out_channels // layer.groups, dim=0)
        rows = layer.rows(layer.weight.detach()).reshape(*columns.shape, -1).abs().amax(dim=2).cpu()
        chosen = torch.where(rows > 0, columns, FREE)
        outputs = chosen.amax(dim=1)
        self._same(chosen, outputs[:, None])
        ids = outputs.reshape(1, -1, 1, 1).expand(self._shapes[step.name])
        if isinstance(layer, Conv2d) and layer.residual:
            ids = self._same(ids, given[1])
        if not _homogeneous(layer.bounds):
            self._fix(ids)
        return ids

    def _product(self, step: Step, a: Tensor, b: Tensor) -> Tensor:
        """A factor that nobody scales (a gate) leaves the other's variables."""
        for one, other in ((a, b), (b, a)):
            if all(self._root(int(v)) == FIXED for v in np.unique(one.numpy()) if v != FREE):
                return other.expand(self._shapes[step.name])
        return self._barrier(step)

    def _barrier(self, step: Step) -> Tensor:
        for name in step.inputs:
            self._fix(self._ids[name])
        return self._fixed(step.name)

    def _fixed(self, name: str) -> Tensor:
        return torch.zeros((), dtype=torch.int64).expand(self._shapes[name])

    def _fix(self, ids: Tensor) -> None:
        for variable in np.unique(ids.numpy()).tolist():
            self._join(variable, FIXED)

    def _channels(self, ids: Tensor) -> Tensor:
        """One variable for each channel [C]: all positions of a channel are made one."""
        flat = ids.reshape(ids.shape[1], -1) if ids.ndim > 1 else ids.reshape(1, -1)
        first = flat.amax(dim=1)
        self._same(flat, first[:, None])
        return first

    def _same(self, a: Tensor, b: Tensor) -> Tensor:
        """Make variables one, element by element; returns them."""
        shape = np.broadcast_shapes(tuple(a.shape), tuple(b.shape))
        a, b = a.expand(shape), b.expand(shape)
        differing = (a != b).nonzero(as_tuple=True)
        if len(differing[0]):
            pairs = torch.stack([a[differing], b[differing]], dim=1).numpy()
            for one, other in np.unique(pairs, axis=0).tolist():
                self._join(one, other)
        return torch.maximum(a, b)

    def _join(self, a: int, b: int) -> None:
        if FREE in (a, b):
            return
        low, high = sorted((self._root(a), self._root(b)))
        self._parents[high] = low

    def _root(self, variable: int) -> int:
        root = variable
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[variable] != root:
            self._parents[variable], variable = root, self._parents[variable]
        return root


def _is_choice(layer: Weighted) -> bool:
    """Made by lowering to choose, repeat or average channels, not from weights of the user's."""
    return not (layer.origin or layer.weight.requires_grad or layer.bias is not None or layer.bn is not None)


def _homogeneous(bounds: Bounds) -> bool:
    return all(edge in (None, 0.0) for edge in bounds)


def _homogeneous_table(table: Table) -> bool:
    if table.operator == "affine":
        return float(table.parameters_of_function.get("offset", 1.0)) == 0.0
    return table.operator in _HOMOGENEOUS
