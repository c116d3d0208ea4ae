"""What each pass has made, as text: for goldens, for ``docs/bpu.md``, and for whoever wonders about a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from carkp_bpu.compiler.allocate import Buffer
from carkp_bpu.compiler.group import Model
from carkp_bpu.compiler.maps import MapBuffer, TensorMap
from carkp_bpu.compiler.placement import Cascade, Placement, Tiled
from carkp_bpu.compiler.rows import IntArray
from carkp_bpu.hbm import isa
from carkp_bpu.hbm.debug import DebugTable


def layers_text(model: Model) -> str:
    """One line a layer, then the names that share another tensor's storage."""
    lines = []
    for index, layer in enumerate(model.layers):
        sizes = _size(model.maps[layer.output])
        lines.append(f"layer {index}: {layer.output} = {layer.info.op}({', '.join(layer.inputs)})  {sizes}")
    lines += [f"{name} is another name of {root}" for name, root in model.roots.items()]
    return _text(lines)


def segments_text(model: Model, placement: Placement) -> str:
    """One paragraph a segment, then the tensors that stay on chip."""
    lines: list[str] = []
    for segment in placement.segments:
        lines += _tiled(model, segment) if isinstance(segment, Tiled) else _cascade(model, segment)
    return _text([*lines, f"on chip: {', '.join(sorted(placement.resident)) or 'nothing'}"])


def buffers_text(buffers: Sequence[Buffer]) -> str:
    """One line a buffer: from which layer to which it lives, and its bytes."""
    return _text(f"layers {b.first}..{b.last}  {b.size:6} bytes  {b.name}" for b in buffers)


def instructions_text(instructions: Sequence[isa.Instruction], debug: DebugTable) -> str:
    """One line an instruction: engine, layer, what it does, and how much of each engine it waits for."""
    lines = []
    for index, instruction in enumerate(instructions):
        info = debug.instructions[index]
        waits = " ".join(f"{e}:{n}" for e, n in zip(isa.ENGINES, instruction.waits, strict=True) if n)
        name = debug.tensors[info.operands[-1].tensor].name
        what = f"{type(instruction).__name__.lower()} {name}"
        rows = getattr(instruction, "rows", None)
        if rows is not None:
            what += f" rows {rows[0]}..{rows[1]}"
        elif isinstance(instruction, (isa.Load, isa.Store)):
            what += f" {instruction.dims[0] * instruction.dims[1] * instruction.dims[3]} bytes"
        lines.append(f"{instruction.ENGINE:8} layer {info.layer}  {what}" + (f"  waits {waits}" if waits else ""))
    return _text(lines)


def _tiled(model: Model, segment: Tiled) -> Iterator[str]:
    plan, layer = segment.plan, model.layers[segment.layer]
    count = len(plan.tiles)
    yield f"layer {segment.layer}: {count} tile{'s' * (count > 1)} of " + " x ".join(
        str(size) for size in (plan.shape.rows, plan.shape.columns, plan.shape.channels)
    )
    for name, buffer in zip(layer.inputs, plan.inputs, strict=True):
        if buffer is not None:
            yield f"    {name} through DDR, {_slots(buffer)}"
    if plan.parameter_slots:
        yield f"    parameters: {plan.parameter_slots} x {plan.parameter_bytes} bytes"
    if plan.output is not None:
        yield f"    {layer.output} to DDR, {plan.output_buffers} x {_slots(plan.output)}"


def _cascade(model: Model, segment: Cascade) -> Iterator[str]:
    shape = segment.shape
    high = f"{shape.stripe} row{'s' * (shape.stripe > 1)}"
    yield f"layers {shape.first}..{shape.last}: cascade, {shape.steps} steps of {high}"
    for name, buffer in segment.inputs.items():
        yield f"    {name} through DDR, {_slots(buffer)}: rows {_rows(shape.taken[name].done)}"
    for index in range(shape.first, shape.last + 1):
        name = model.layers[index].output
        held = _slots(segment.rings[name]) if name in segment.rings else "on chip"
        block = f"{segment.parameter_bytes[index]} bytes of parameters"
        yield f"    {name}: {held}, {block}: rows {_rows(shape.made[name].done)}"


def _slots(buffer: MapBuffer) -> str:
    return f"{buffer.rows} row{'s' * (buffer.rows > 1)}"


def _rows(done: IntArray) -> str:
    """The rows that are done after each step."""
    return " ".join(str(row) for row in done.tolist())


def _size(tensor: TensorMap) -> str:
    return f"{tensor.dtype} {tensor.height} x {tensor.width} x {tensor.channels}"


def _text(lines: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
