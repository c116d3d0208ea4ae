"""``carkp hbm``: look into a compiled program, list and assemble its instructions, run it."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carkp_core.cli_options import json_option, write_json
from carkp_core.errors import BackendError

if TYPE_CHECKING:
    import numpy.typing as npt

    from carkp_bpu.hbm.description import Port
    from carkp_bpu.hbm.program import HbmProgram

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def hbm() -> None:
    """Open .hbm files: carkp's own container for its own machine model. They run on no board."""


@hbm.command()
@click.argument("file", type=_FILE)
@json_option
def info(file: Path, json_path: Path | None) -> None:
    """What a program is: model, march, inputs, outputs, sizes, instructions."""
    from rich.console import Console
    from rich.table import Table

    from carkp_bpu.hbm.program import load

    facts = describe(load(file))
    table = Table(title=str(file), show_header=False)
    for name, value in facts.items():
        if isinstance(value, dict):
            for key, item in value.items():
                table.add_row(f"{name}: {key}", str(item))
        else:
            table.add_row(name, str(value))
    Console().print(table)
    write_json(json_path, facts)


@hbm.command()
@click.argument("file", type=_FILE)
@click.option("--out", type=_FILE, default=None, help="Write the listing here instead of to the screen.")
@json_option
def disasm(file: Path, out: Path | None, json_path: Path | None) -> None:
    """List the instructions as text that ``asm`` turns back into the same bytes."""
    from carkp_bpu.hbm.listing import format_listing
    from carkp_bpu.hbm.program import load

    program = load(file)
    layers = [_layer(program, index) for index in range(len(program.instructions))]
    text = "\n".join(format_listing(program.instructions, layers)) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        _write_text(out, text)
    write_json(json_path, {"file": str(file), "sha256": program.sha256, "instructions": list_instructions(program)})


@hbm.command()
@click.argument("file", type=_FILE)
@click.argument("listing", type=_FILE)
@click.option("--out", type=_FILE, required=True, help="The program to write.")
@json_option
def asm(file: Path, listing: Path, out: Path, json_path: Path | None) -> None:
    """Put the instructions of a LISTING into a copy of FILE, which gives model, constants and debug table."""
    from carkp_bpu.hbm.listing import parse_listing
    from carkp_bpu.hbm.program import load, write

    program = load(file)
    try:
        instructions = parse_listing(_read_text(listing).splitlines())
    except BackendError as error:
        error.where = f"{listing}, {error.where}"
        raise
    made = program.with_instructions(instructions)
    sha256 = write(made, out)
    click.echo(f"{out}: {sha256}")
    facts = {"file": str(out), "sha256": sha256, "same": sha256 == program.sha256, "instructions": len(instructions)}
    write_json(json_path, facts | {"debug_table": bool(made.debug.instructions)})


@hbm.command()
@click.argument("file", type=_FILE)
@click.option(
    "--inputs", type=_FILE, default=None, help="An .npz with one integer array for each input (default: zeros)."
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Frames to run when no inputs are given.",
)
@click.option("--tap", "taps", multiple=True, metavar="NAME", help="Also return this tensor. May be repeated.")
@click.option("--out", type=_FILE, default=None, help="Write outputs and taps to this .npz.")
@json_option
def run(
    file: Path, inputs: Path | None, frames: int, taps: tuple[str, ...], out: Path | None, json_path: Path | None
) -> None:
    """Execute a program on the machine simulator and say what it moved."""
    import attrs
    import numpy as np
    from rich.console import Console

    from carkp_bpu.hbm.program import load
    from carkp_bpu.simulator.machine import check_program_inputs, cycles, run_program, traffic

    program = load(file)
    given = _zeros(program, frames) if inputs is None else _arrays(inputs)
    check_program_inputs(program, given, None if inputs is None else str(inputs))
    results = run_program(program, given, taps)
    moved, counted = traffic(program), cycles(program)
    console = Console()
    for name, value in results.items():
        span = f", {value.min()}..{value.max()}" if value.size else ""
        console.print(f"{name}: {value.dtype} {value.shape}{span}")
    console.print(
        f"per frame: {moved.ddr_bytes:,} DDR bytes, {moved.macs:,} MACs, {counted:,} cycles, "
        f"SRAM up to {moved.sram_peak_bytes:,}"
    )
    if out is not None:
        arrays: Any = results
        np.savez(out, **arrays)
    shapes = {name: {"dtype": str(value.dtype), "shape": list(value.shape)} for name, value in results.items()}
    facts = attrs.asdict(moved) | {"ddr_bytes": moved.ddr_bytes}
    write_json(json_path, {"results": shapes, "traffic": facts, "cycles": counted})


def describe(program: HbmProgram) -> dict[str, Any]:
    """A program's facts, as ``hbm info`` prints them."""
    about = program.description
    kinds = Counter(type(instruction).__name__.lower() for instruction in program.instructions)
    return {
        "name": about.name,
        "march": about.march,
        "compiler": about.compiler,
        "opt": about.opt,
        "input_source": about.input_source,
        "features": ", ".join(about.features) or "none",
        "sram_bytes": about.sram_bytes,
        "constant_bytes": about.constant_bytes,
        "frame_bytes": about.ddr_bytes - about.constant_bytes,
        "graph_digest": about.graph_digest,
        "options_digest": about.options_digest,
        "sha256": program.sha256,
        "inputs": {port.name: _port(port) for port in about.inputs},
        "outputs": {port.name: _port(port) for port in about.outputs},
        "plan": dict(about.plan),
        "allocation_overhead": _overhead(about.plan),
        "instructions": dict(sorted(kinds.items())),
    }


def list_instructions(program: HbmProgram) -> list[dict[str, Any]]:
    """Index, kind, engine, layer and fields of every instruction, as ``hbm disasm --json`` writes them."""
    import attrs

    return [
        {
            "index": index,
            "kind": type(instruction).__name__.lower(),
            "engine": instruction.ENGINE,
            "layer": _layer(program, index),
            "fields": attrs.asdict(instruction),
        }
        for index, instruction in enumerate(program.instructions)
    ]


def _layer(program: HbmProgram, index: int) -> str:
    """An instruction's layer and module path; nothing without debug table."""
    return program.debug.place(index).partition(", ")[2]


def _port(port: Port) -> str:
    shape = "x".join(map(str, port.shape))
    text = f"{port.dtype} {shape}, scale {port.scale!r}, {port.layout} at DDR {port.ddr}"
    return f"{text}; {port.preprocessing}" if port.preprocessing else text


def _overhead(plan: Mapping[str, int]) -> float | None:
    """Allocated height over what is wanted at one time, less one; None when the plan does not say."""
    height, live = plan.get("sram_peak_bytes", 0), plan.get("sram_live_bound_bytes", 0)
    return round(height / live - 1, 6) if live else None


def _zeros(program: HbmProgram, frames: int) -> dict[str, npt.NDArray[Any]]:
    import numpy as np

    return {name: np.zeros((frames, *shape[1:]), dtype) for name, (shape, dtype, _) in program.inputs.items()}


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    import numpy as np

    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError("one array without a name")
        with stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        seen = "Python objects" if "allow_pickle" in str(error) else str(error)
        allowed = "an .npz file of integer arrays, as numpy.savez writes it"
        raise BackendError("the inputs cannot be read", where=str(path), seen=seen, allowed=allowed) from error


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BackendError("the listing cannot be read", where=str(path), seen=str(error)) from error
