"""DDR: constants first, then each frame's inputs, outputs, and the tensors that do not stay on chip."""

from __future__ import annotations

import attrs
from attrs import field, frozen

from carkp_bpu.compiler.allocate import Buffer, lowest
from carkp_bpu.compiler.group import Model, dense_bytes
from carkp_bpu.compiler.placement import Placement, passing, spans

_ALIGNMENT = 64


class Constants:
    """The constants section as it grows; equal contents are stored once."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._known: dict[bytes, int] = {}

    def add(self, content: bytes) -> int:
        """The address of some bytes."""
        if content not in self._known:
            self._data.extend(bytes(-len(self._data) % 16))
            self._known[content] = len(self._data)
            self._data.extend(content)
        return self._known[content]

    def section(self) -> bytes:
        """Everything, padded to a multiple of 64 bytes."""
        return bytes(self._data) + bytes(-len(self._data) % _ALIGNMENT)


@frozen
class Homes:
    """DDR addresses of tensors by root name; those of a frame are relative to the end of the constants."""

    constants: dict[str, int]
    frame: dict[str, int]
    frame_bytes: int = field(default=0)

    def moved(self, constant_bytes: int) -> dict[str, int]:
        """Absolute addresses once the constants' size is known."""
        return {**self.constants, **{name: at + constant_bytes for name, at in self.frame.items()}}


def find_homes(model: Model, placement: Placement, constants: Constants) -> Homes:
    """An address in DDR for every tensor that needs one; tensors that never live at once may share."""
    last, within = len(model.layers), spans(placement.segments)
    on_chip = placement.resident | passing(model, placement.segments)
    outputs = {model.root(name) for name in model.graph.outputs}
    used = {model.root(name): index for index, layer in enumerate(model.layers) for name in layer.inputs}
    # Inputs and outputs live all the time: a host may read them whenever it likes.
    buffers = [Buffer(i.name, model.maps[i.name].dense_bytes, 0, last) for i in model.graph.inputs]
    for index, layer in enumerate(model.layers):
        name = layer.output
        if name in outputs:
            buffers.append(Buffer(name, model.maps[name].dense_bytes, 0, last))
        elif name not in on_chip:
            lifetime = within[index][0], within[used.get(name, index)][1]
            buffers.append(Buffer(name, model.maps[name].dense_bytes, *lifetime))
    padded = [attrs.evolve(b, size=-(-b.size // _ALIGNMENT) * _ALIGNMENT) for b in buffers]
    plan = lowest(padded, rounds=8)
    fixed = {name: constants.add(dense_bytes(value)) for name, value in model.constants.items()}
    return Homes(fixed, dict(plan.offsets), -(-plan.height // _ALIGNMENT) * _ALIGNMENT)
