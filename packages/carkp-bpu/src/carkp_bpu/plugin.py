"""What carkp-bpu offers to carkp: one backend with five marches, and the commands that open ``.hbm`` files."""

from __future__ import annotations

from collections.abc import Iterator

from carkp_core import hookimpl
from carkp_core.backend import Backend
from carkp_core.commands import Command

MARCHES = ("bernoulli2", "bayes", "bayes-e", "nash-e", "nash-m")


@hookimpl
def carkp_backends() -> Iterator[Backend]:
    yield Backend("bpu", MARCHES, "carkp_bpu.backend:BpuBackend")


@hookimpl
def carkp_commands() -> Iterator[Command]:
    yield Command("hbm", "carkp_bpu.hbm_commands:hbm", "Look into a compiled program: info, disasm, asm, run.")
