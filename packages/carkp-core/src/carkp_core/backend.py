"""All that core knows of an NPU: the record a plugin registers and the interface behind it.

A backend author writes two files: ``plugin.py`` with a ``Backend`` record, and the module it names, whose
attribute is a class (or module-level object) that satisfies ``NpuBackend``. Core's commands reach an NPU only
through this interface: quantization scheme, check, simulate, compile, load and run a program, estimate, and the
image as the camera pipeline delivers it.

Legend: ``N`` batch, ``C H W`` as usual. Integer tensors are int8 or int16 numpy arrays in NCHW order.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs
from attrs import field, frozen

from carkp_core.errors import BackendError

if TYPE_CHECKING:
    import numpy as np

    from carkp_core.ir.graph import Graph

Arrays = Mapping[str, "np.ndarray"]
PortType = tuple[tuple[int, ...], str, float]
Verdict = Literal["NPU", "CPU", "rejected"]


@frozen
class Backend:
    """An NPU family: ``load`` is ``"package.module:Class"``, imported when a march is used."""

    name: str
    marches: tuple[str, ...]
    load: str
    provider: str = ""

    def resolve(self) -> NpuBackend:
        """Import the implementation and make it."""
        from carkp_core.catalog import load_object

        try:
            made = load_object(self.load)()
        except (ImportError, AttributeError) as error:
            raise BackendError(
                f"backend {self.name!r} of {self.provider or 'an unknown plugin'} cannot be loaded",
                seen=f"{self.load}: {error}",
                remedy="reinstall or update the package that offers it",
            ) from error
        return made  # type: ignore[no-any-return]


@frozen
class QuantScheme:
    """How a node is quantized: the types of its output and of its weights."""

    output_dtype: Literal["int8", "int16"] = "int8"
    weight_dtype: Literal["int8"] = "int8"
    per_channel: bool = True


@frozen
class Violation:
    """One rule broken by one node, with its place in the user's code."""

    rule: str
    node: str
    source: str
    seen: str
    allowed: str
    remedy: str


@frozen
class NodeVerdict:
    """Where a node would run. ``segment`` counts the NPU segments of the program, None off the NPU."""

    node: str
    op: str
    verdict: Verdict
    source: str
    segment: int | None


@frozen
class CheckReport:
    """The operator check of a whole graph."""

    march: str
    nodes: tuple[NodeVerdict, ...]
    violations: tuple[Violation, ...]

    @property
    def ok(self) -> bool:
        """True when every node runs on the NPU."""
        return not self.violations and all(v.verdict == "NPU" for v in self.nodes)

    @property
    def segments(self) -> int:
        """The number of NPU segments that CPU nodes leave."""
        return len({v.segment for v in self.nodes if v.segment is not None})

    def to_json(self) -> dict[str, Any]:
        """The fixed machine-readable form."""
        return {
            "march": self.march,
            "ok": self.ok,
            "violations": [attrs.asdict(v) for v in self.violations],
            "segments": self.segments,
            "nodes": [attrs.asdict(v) for v in self.nodes],
        }


@frozen
class CompileOptions:
    """What ``compile_cfg`` says, complete."""

    march: str
    name: str
    hbm: Path = field(converter=Path)
    out_dir: Path = field(converter=Path)
    opt: Literal["O0", "O1", "O2"] = "O2"
    sram_bytes: int | None = None
    input_source: Literal["ddr", "pyramid", "resizer"] = "pyramid"
    layer_details: bool = True


@frozen
class PerformanceReport:
    """An estimate for one core. ``details`` is the vendor-keyed summary, written as ``perf.json``."""

    march: str
    sram_bytes: int
    latency_ms: float
    fps: float
    ddr_bytes_per_frame: int
    ddr_bytes_lower_bound: int
    sram_peak_bytes: int
    #: The most that is wanted on chip at one time, below which no allocation can go; 0 when nothing was allocated.
    sram_live_bytes: int = 0
    details: Mapping[str, Any] = field(factory=dict, repr=False)


@frozen
class CompileResult:
    """A program and its estimate. ``hbm`` and ``sha256`` are None when the check had findings."""

    check: CheckReport
    performance: PerformanceReport
    hbm: Path | None
    sha256: str | None
    reports: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fixed machine-readable form."""
        fields = [f.name for f in attrs.fields(PerformanceReport) if f.name != "details"]
        head = {"hbm": None if self.hbm is None else str(self.hbm), "sha256": self.sha256}
        return head | {name: getattr(self.performance, name) for name in fields} | {"ok": self.check.ok}


class Executor(Protocol):
    """Runs an integer graph: quantized inputs by name -> outputs (and tapped tensors) by name."""

    def __call__(self, inputs: Arrays, taps: Sequence[str] = ()) -> dict[str, np.ndarray]: ...


class Program(Protocol):
    """A compiled program as loaded from a file."""

    @property
    def name(self) -> str:
        """The name given at compilation."""

    @property
    def march(self) -> str:
        """What it was compiled for."""

    @property
    def graph_digest(self) -> str:
        """``Graph.digest()`` of the integer model it was compiled from."""

    @property
    def options_digest(self) -> str:
        """The digest of the options it was compiled with."""

    @property
    def inputs(self) -> Mapping[str, PortType]:
        """Shape (N = 1), type and scale of each input by name."""

    @property
    def outputs(self) -> Mapping[str, PortType]:
        """Shape (N = 1), type and scale of each output by name."""


class NpuBackend(Protocol):
    """What an NPU plugin implements."""

    def quant_scheme(self, node: Any, march: str) -> QuantScheme | None:
        """How to quantize a traced node, or None for core's default (int8)."""

    def check(self, graph: Graph, march: str) -> CheckReport:
        """Judge every node of an integer graph (``Opaque`` nodes stand for operators without integer form)."""

    def simulate(self, graph: Graph, threads: int | None = None) -> Executor:
        """A fast executor, bit-equal to ``ir.reference``."""

    def compile(self, graph: Graph, options: CompileOptions) -> CompileResult:
        """Check, compile, write the program and the reports. With findings, no program is written."""

    def options_digest(self, options: CompileOptions) -> str:
        """The digest that a program compiled with these options carries."""

    def estimate(self, graph: Graph, options: CompileOptions) -> PerformanceReport:
        """The performance of a graph, without writing anything."""

    def load_program(self, path: Path) -> Program:
        """Read a compiled program. Raises BackendError when it is damaged or of another format."""

    def run_program(self, program: Program, inputs: Arrays, taps: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Execute a program on the machine simulator."""

    def camera_input(self, image_rgb: np.ndarray, march: str) -> np.ndarray:
        """An RGB uint8 image [H, W, 3], even sides -> int8 [3, H, W] as the sensor pipeline delivers it."""


def find_backend(backends: Iterable[Backend], march: str) -> NpuBackend:
    """The implementation that offers a march.

    Raises
    ------
    BackendError
        When no installed package offers the march, or more than one does.
    """
    backends = tuple(backends)
    offering = [b for b in backends if march in b.marches]
    if len(offering) > 1:
        raise BackendError(
            f"march {march!r} is offered more than once",
            seen=", ".join(f"{b.name} of {b.provider}" for b in offering),
            remedy="uninstall one of the packages",
        )
    if not offering:
        known = sorted(m for b in backends for m in b.marches)
        raise BackendError(
            f"no installed package offers march {march!r}",
            allowed=", ".join(known) or "none: no backend is installed",
            remedy=_remedy(march, known),
        )
    return offering[0].resolve()


def _remedy(march: str, known: Sequence[str]) -> str:
    bpu = ("bernoulli2", "bayes", "bayes-e", "nash-e", "nash-m")
    if march in bpu:
        return "pip install carkp-bpu"
    close = difflib.get_close_matches(march, [*known, *bpu], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}check the spelling, or install the package that offers this march"
