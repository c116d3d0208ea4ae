"""The compiler's passes in order: group, plan (tiles, cascades, residents, offsets), homes, emit, waits, program.

At O2 several plans compete: each becomes a program, and the one that ends first on the timeline is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import field, frozen

from carkp_bpu import __version__
from carkp_bpu.compiler.bound import TrafficBound, lower_bound
from carkp_bpu.compiler.emit import emit, store_parameters
from carkp_bpu.compiler.group import Model, group
from carkp_bpu.compiler.homes import Constants, find_homes
from carkp_bpu.compiler.options import check_options, options_digest, sram_bytes
from carkp_bpu.compiler.placement import Placement, Target
from carkp_bpu.compiler.prefetch import prefetch
from carkp_bpu.compiler.reside import Menus, reside
from carkp_bpu.compiler.schedule import add_waits
from carkp_bpu.compiler.search import search
from carkp_bpu.hbm import counts, isa
from carkp_bpu.hbm.description import Description, Port
from carkp_bpu.hbm.encoding import encode_instructions
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march import March
from carkp_bpu.perf.timeline import timeline
from carkp_core.backend import CompileOptions
from carkp_core.errors import BackendError
from carkp_core.ir.graph import Graph

_DDR_SHARE = 0.25


@frozen
class PlanStats:
    """What a program moves for one frame, and how well memory is used; bytes."""

    loaded_bytes: int
    stored_bytes: int
    instruction_bytes: int
    bound: TrafficBound
    sram_bytes: int
    #: Height of the allocation, and the live size that no allocation can go below.
    sram_peak_bytes: int
    sram_live_bound_bytes: int
    instructions: int
    resident_tensors: int
    spilled_tensors: int

    @property
    def ddr_bytes(self) -> int:
        """Everything that crosses the DDR interface, instruction fetch included."""
        return self.loaded_bytes + self.stored_bytes + self.instruction_bytes

    @property
    def ddr_bytes_lower_bound(self) -> int:
        """What any program has to move."""
        return self.bound.total

    @property
    def allocation_overhead(self) -> float:
        """Allocated height over the live size, less one."""
        return self.sram_peak_bytes / self.sram_live_bound_bytes - 1 if self.sram_live_bound_bytes else 0.0


@frozen(eq=False)
class CompiledProgram:
    """A program, its file's bytes, and what the compiler planned."""

    program: HbmProgram
    data: bytes = field(repr=False)
    stats: PlanStats


def compile_graph(graph: Graph, march: March, options: CompileOptions) -> CompiledProgram:
    """Compile an integer model. Equal input gives equal bytes.

    Parameters
    ----------
    graph:
        A verified integer model. Whether the march's operators admit it is the checker's business.
    march, options:
        The machine, and what ``compile_cfg`` says. Nothing is written here; ``hbm.program.write`` does that.

    Raises
    ------
    BackendError
        When a node has no instruction, or a layer's smallest tile does not fit on chip.
    """
    check_options(options)
    target = Target(march, sram_bytes(options, march), options.opt)
    model = group(graph)
    made = [_assemble(graph, model, placement, target, options) for placement in _placements(model, target)]
    # Nothing that moves more than the plan layer by layer.
    rivals = [one for one in made if one.stats.ddr_bytes <= made[0].stats.ddr_bytes]
    return rivals[0] if len(rivals) == 1 else min(rivals, key=lambda one: _rank(one, march))


def _placements(model: Model, target: Target) -> Iterator[Placement]:
    """The plan layer by layer; at O2 also with cascades, and both fetching ahead."""
    menus = Menus(model, target)
    plain = reside(model, target, menus)
    yield plain
    if target.level == "O2":
        yield prefetch(plain, target.sram_bytes)
        for found in search(model, target, menus):
            yield prefetch(found, target.sram_bytes)


def _rank(made: CompiledProgram, march: March) -> float:
    """Cycles, and a share of those that its bytes keep the DDR busy: there are other cores to use it."""
    return timeline(made.program, march).cycles + _DDR_SHARE * made.stats.ddr_bytes / march.dma_bytes_per_cycle


def _assemble(
    graph: Graph, model: Model, placement: Placement, target: Target, options: CompileOptions
) -> CompiledProgram:
    """The program of a plan."""
    constants = Constants()
    homes = find_homes(model, placement, constants)
    blocks = store_parameters(model, placement, constants)
    section = constants.section()
    addresses = homes.moved(len(section))
    emitted = emit(model, placement, addresses, blocks, target)
    ddr_bytes = len(section) + homes.frame_bytes
    instructions = add_waits(emitted.instructions, target.sram_bytes, ddr_bytes)
    stats = _stats(graph, placement, instructions, target, spilled=len(homes.frame))
    description = Description(
        compiler=f"carkp-bpu {__version__}",
        name=options.name,
        march=target.march.name,
        opt=options.opt,
        input_source=options.input_source,
        features=_features(instructions),
        sram_bytes=target.sram_bytes,
        constant_bytes=len(section),
        ddr_bytes=ddr_bytes,
        graph_digest=graph.digest(),
        options_digest=options_digest(options, target.march),
        inputs=_inputs(graph, addresses),
        outputs=_outputs(graph, model, addresses),
        plan={
            "loaded_bytes": stats.loaded_bytes,
            "stored_bytes": stats.stored_bytes,
            "instruction_bytes": stats.instruction_bytes,
            "ddr_bytes_lower_bound": stats.ddr_bytes_lower_bound,
            "sram_peak_bytes": stats.sram_peak_bytes,
            "sram_live_bound_bytes": stats.sram_live_bound_bytes,
        },
    )
    program = HbmProgram(description, section, instructions, emitted.debug)
    return CompiledProgram(program, program.to_bytes(), stats)


def _stats(
    graph: Graph, placement: Placement, instructions: tuple[isa.Instruction, ...], target: Target, spilled: int
) -> PlanStats:
    return PlanStats(
        loaded_bytes=sum(counts.ddr_bytes(i) for i in instructions if isinstance(i, isa.Load)),
        stored_bytes=sum(counts.ddr_bytes(i) for i in instructions if isinstance(i, isa.Store)),
        instruction_bytes=len(encode_instructions(instructions)),
        bound=lower_bound(graph),
        sram_bytes=target.sram_bytes,
        sram_peak_bytes=placement.sram.height,
        sram_live_bound_bytes=placement.sram.bound,
        instructions=len(instructions),
        resident_tensors=len(placement.resident),
        spilled_tensors=spilled - len(graph.inputs) - len(set(graph.outputs)),
    )


def _inputs(graph: Graph, addresses: dict[str, int]) -> tuple[Port, ...]:
    return tuple(
        Port(i.name, i.type.shape, i.type.dtype, float(i.type.scale), addresses[i.name], i.preprocessing)
        for i in graph.inputs
    )


def _outputs(graph: Graph, model: Model, addresses: dict[str, int]) -> tuple[Port, ...]:
    types = graph.types()
    ports = []
    for name in graph.outputs:
        root, tensor = model.root(name), types[name]
        if root not in addresses:
            raise BackendError("an output has no place in DDR", where=name)
        ports.append(Port(name, tensor.shape, tensor.dtype, float(tensor.scale), addresses[root]))
    return tuple(ports)


def _features(instructions: tuple[isa.Instruction, ...]) -> tuple[str, ...]:
    found = set()
    for instruction in instructions:
        maps = [m for m in (getattr(instruction, "input", None), getattr(instruction, "output", None)) if m is not None]
        if any(m.dtype == 2 for m in maps):
            found.add("int16")
        if any(isinstance(m, isa.FeatureMap) and m.ring_rows < m.height for m in maps):
            found.add("rings")
        if isinstance(instruction, isa.Pool) and not (instruction.first and instruction.last):
            found.add("partial_pool")
    return tuple(sorted(found))
