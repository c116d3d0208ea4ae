"""The debug table: instruction -> layer -> module path, what each operand is meant to hold, where tensors lie.

Execution does not need it. Guards compare it with what memory really holds, taps find tensors by it.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import field, frozen

from carkp_core.errors import BackendError

#: Row of an operand whose rows are not followed.
ANY_ROW = 0xFFFFFFFF
NO_TENSOR = 0xFFFFFFFF


@frozen
class LayerInfo:
    """A node of the integer model."""

    name: str
    op: str
    source: str


@frozen
class TensorInfo:
    """What an operand holds: a tensor of the model, or a parameter block (empty ``shape``)."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()


@frozen
class Operand:
    """What one access of an instruction is meant to touch: a tensor, from a row on (index 0 of the first dimension)."""

    tensor: int
    row: int = ANY_ROW


@frozen
class InstructionInfo:
    """Layer and operands of one instruction; operands in the order of ``footprint.accesses``."""

    layer: int
    operands: tuple[Operand, ...]


@frozen
class Piece:
    """Where a part of a tensor lies once instruction ``ready`` is done, for taps.

    Row y of ``rows`` is in slot (y - first_row) % ring_rows, column x of ``columns`` at x - first_column, channels
    ``channels`` from ``address`` on, as in ``isa.FeatureMap``.
    """

    tensor: int
    in_ddr: bool
    ready: int
    address: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    channels: tuple[int, int]
    pixel_pitch: int
    row_pitch: int
    ring_rows: int
    first_row: int
    first_column: int


@frozen
class DebugTable:
    """All of it. ``instructions`` has one entry for each instruction, or none at all."""

    layers: tuple[LayerInfo, ...] = ()
    tensors: tuple[TensorInfo, ...] = ()
    instructions: tuple[InstructionInfo, ...] = field(default=(), repr=False)
    pieces: tuple[Piece, ...] = field(default=(), repr=False)

    def place(self, index: int) -> str:
        """An instruction's place in words: index, layer, module path."""
        if index >= len(self.instructions):
            return f"instruction {index}"
        layer = self.layers[self.instructions[index].layer]
        source = f" of {layer.source}" if layer.source else ""
        return f"instruction {index}, layer {layer.name} ({layer.op}){source}"


def encode_debug(table: DebugTable) -> bytes:
    """Canonical JSON of numbers in arrays."""
    raw = {
        "layers": [[layer.name, layer.op, layer.source] for layer in table.layers],
        "tensors": [[t.name, t.dtype, *t.shape] for t in table.tensors],
        "instructions": [
            [info.layer, *(number for o in info.operands for number in (o.tensor, o.row))]
            for info in table.instructions
        ],
        "pieces": [_flat(piece) for piece in table.pieces],
    }
    return json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()


def decode_debug(data: bytes, instructions: int) -> DebugTable:
    """The table of canonical JSON. Raises BackendError when it does not fit a program of that many instructions."""
    try:
        raw = json.loads(data)
        table = DebugTable(
            layers=tuple(LayerInfo(*map(_text, item)) for item in raw["layers"]),
            tensors=tuple(TensorInfo(_text(n), _text(d), tuple(map(_index, shape))) for n, d, *shape in raw["tensors"]),
            instructions=tuple(_instruction(item) for item in raw["instructions"]),
            pieces=tuple(_piece(list(map(_index, item))) for item in raw["pieces"]),
        )
        _check(table, instructions)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise BackendError(
            "the program's debug table cannot be read",
            seen=f"{type(error).__name__}: {error}",
            remedy="compile it again",
        ) from error
    return table


def _check(table: DebugTable, instructions: int) -> None:
    if len(table.instructions) not in (0, instructions):
        raise ValueError(f"{len(table.instructions)} entries for {instructions} instructions")
    for info in table.instructions:
        if info.layer >= len(table.layers):
            raise ValueError(f"layer {info.layer} of {len(table.layers)}")
        for operand in info.operands:
            if operand.tensor >= len(table.tensors) and operand.tensor != NO_TENSOR:
                raise ValueError(f"tensor {operand.tensor} of {len(table.tensors)}")
    for piece in table.pieces:
        if piece.tensor >= len(table.tensors) or piece.ready >= max(instructions, 1) or not piece.ring_rows:
            raise ValueError(f"piece {piece}")


def _instruction(item: list[Any]) -> InstructionInfo:
    layer, *flat = map(_index, item)
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return InstructionInfo(layer, tuple(Operand(tensor, row) for tensor, row in pairs))


def _flat(piece: Piece) -> list[int]:
    spans = (*piece.rows, *piece.columns, *piece.channels)
    pitches = (piece.pixel_pitch, piece.row_pitch, piece.ring_rows, piece.first_row, piece.first_column)
    return [piece.tensor, int(piece.in_ddr), piece.ready, piece.address, *spans, *pitches]


def _piece(item: list[int]) -> Piece:
    tensor, in_ddr, ready, address, y0, y1, x0, x1, c0, c1, *pitches = item
    if not (y0 < y1 and x0 < x1 and c0 < c1):
        raise ValueError(f"piece {item}")
    return Piece(tensor, bool(in_ddr), ready, address, (y0, y1), (x0, x1), (c0, c1), *pitches)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _index(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not an index")
    return value
