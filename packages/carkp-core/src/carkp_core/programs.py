"""Compiled programs of a config: compile one, or take the one on disk when it still belongs to the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

from carkp_core.backend import CheckReport, CompileOptions, CompileResult, NpuBackend, Program
from carkp_core.errors import BackendError

if TYPE_CHECKING:
    from carkp_core.ir.graph import Graph
    from carkp_core.session import Session


class RefusedError(BackendError):
    """A march refuses a network: findings, not a usage error."""

    exit_status = 1

    def __init__(self, check: CheckReport) -> None:
        first = check.violations[0] if check.violations else None
        others = len(check.violations) - 1
        super().__init__(
            f"march {check.march!r} refuses the network, so there is no program",
            where=first.node if first else None,
            seen=f"{first.seen} (and {others} more)" if first and others else first.seen if first else None,
            allowed=first.allowed if first else None,
            remedy="see `carkp model-checker` for every violation",
        )
        self.check = check


@frozen
class CurrentProgram:
    """A program that belongs to the model; ``compiled_because`` is why it was compiled anew, empty if it was not."""

    program: Program
    compiled_because: str = ""


def compile_session(session: Session, *, fast: bool = False, opt: str | None = None) -> CompileResult:
    """Check and compile the config's integer model and write program and reports.

    Parameters
    ----------
    session:
        The opened config.
    fast:
        Quantize the untrained network by random calibration instead of taking the integer model.
    opt:
        ``"O0"``, ``"O1"`` or ``"O2"`` in place of the config's level.

    Raises
    ------
    CheckpointError, BackendError, QuantizationError
        When there is no integer model, it is for another march, or the network cannot be traced.
    """
    backend = session.context.backend()
    graph = session.fast_graph() if fast else session.integer_graph()
    return backend.compile(graph, session.compile_options(opt=opt))


def current_program(
    backend: NpuBackend, graph: Graph, options: CompileOptions, say: Callable[[str], None] = lambda _: None
) -> CurrentProgram:
    """The program at ``options.hbm`` if it was compiled from this graph with these options, else a new one.

    Raises
    ------
    RefusedError
        When it has to be compiled and the check has findings.
    """
    program, reason = _load(backend, graph, options)
    if program is not None:
        return CurrentProgram(program)
    say(f"compiling {options.hbm}: {reason}")
    result = backend.compile(graph, options)
    if result.hbm is None:
        raise RefusedError(result.check)
    return CurrentProgram(backend.load_program(result.hbm), reason)


def _load(backend: NpuBackend, graph: Graph, options: CompileOptions) -> tuple[Program | None, str]:
    """The program on disk, or why it cannot be used."""
    if not options.hbm.exists():
        return None, "there is no program yet"
    try:
        program = backend.load_program(options.hbm)
    except BackendError as error:
        return None, f"the program on disk cannot be read ({error.message})"
    if program.march != options.march:
        return None, f"the program on disk is for march {program.march!r}, not {options.march!r}"
    if program.graph_digest != graph.digest():
        return None, "the program on disk was compiled from another integer model"
    if program.options_digest != backend.options_digest(options):
        return None, "the program on disk was compiled with other options"
    return program, ""
