"""A compiled program: in memory, as bytes, in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
from attrs import field, frozen

from carkp_bpu.hbm import container, isa
from carkp_bpu.hbm.debug import DebugTable, decode_debug, encode_debug
from carkp_bpu.hbm.description import Description, Port, decode_description, encode_description
from carkp_bpu.hbm.encoding import decode_instructions, encode_instructions
from carkp_core.errors import BackendError

PortType = tuple[tuple[int, ...], str, float]


@frozen(eq=False)
class HbmProgram:
    """What an ``.hbm`` holds. Satisfies ``carkp_core.backend.Program``."""

    description: Description
    constants: bytes = field(repr=False)
    instructions: tuple[isa.Instruction, ...] = field(repr=False)
    debug: DebugTable = field(repr=False)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.description.name

    @property
    def march(self) -> str:
        """The march it was compiled for."""
        return self.description.march

    @property
    def graph_digest(self) -> str:
        """``Graph.digest()`` of the integer model."""
        return self.description.graph_digest

    @property
    def options_digest(self) -> str:
        """The digest of the compile options that change a program."""
        return self.description.options_digest

    @property
    def inputs(self) -> dict[str, PortType]:
        """Name -> (shape with N = 1, dtype, scale)."""
        return _types(self.description.inputs)

    @property
    def outputs(self) -> dict[str, PortType]:
        """Name -> (shape with N = 1, dtype, scale)."""
        return _types(self.description.outputs)

    def with_instructions(self, instructions: Iterable[isa.Instruction]) -> HbmProgram:
        """The same program with other instructions. The debug table stays only if it still has one entry for each."""
        made = tuple(instructions)
        fits = len(made) == len(self.debug.instructions)
        return attrs.evolve(self, instructions=made, debug=self.debug if fits else DebugTable())

    def to_bytes(self) -> bytes:
        """The file's bytes; equal programs give equal bytes."""
        return container.pack_sections(
            {
                "model": encode_description(self.description),
                "constants": self.constants,
                "instructions": encode_instructions(self.instructions),
                "debug": encode_debug(self.debug),
            }
        )

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse_program(data: bytes, where: str = "") -> HbmProgram:
    """A program from a file's bytes. Raises BackendError, naming ``where``, when it is damaged or of another format."""
    try:
        return _parse(container.unpack_sections(data))
    except BackendError as error:
        error.where = ", ".join(place for place in (where, error.where) if place) or None
        raise


def _parse(sections: Mapping[str, bytes]) -> HbmProgram:
    description = decode_description(sections["model"])
    if len(sections["constants"]) != description.constant_bytes:
        raise BackendError(
            "constants and description differ in size",
            seen=f"{len(sections['constants'])} bytes",
            allowed=f"{description.constant_bytes} bytes",
            remedy="compile the model again",
        )
    instructions = decode_instructions(sections["instructions"])
    debug = decode_debug(sections["debug"], len(instructions))
    return HbmProgram(description, sections["constants"], instructions, debug)


def load(path: Path) -> HbmProgram:
    """Read a program. Raises BackendError when the file is missing, damaged or of another format."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BackendError(
            "the program cannot be read", where=str(path), seen=error.strerror or str(error), remedy="compile it first"
        ) from error
    return parse_program(data, str(path))


def write(program: HbmProgram, path: Path) -> str:
    """Write a program atomically; returns the SHA-256 of its bytes."""
    data = program.to_bytes()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
    return hashlib.sha256(data).hexdigest()


def _types(ports: tuple[Port, ...]) -> dict[str, PortType]:
    return {port.name: (port.shape, port.dtype, port.scale) for port in ports}
