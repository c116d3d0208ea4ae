"""What the compile options mean for a march, and the digest of those that change a program."""

from __future__ import annotations

import hashlib
import json

from carkp_bpu.hbm.description import MAX_SRAM_BYTES
from carkp_bpu.march import March
from carkp_core.backend import CompileOptions
from carkp_core.errors import BackendError

OPT_LEVELS = ("O0", "O1", "O2")
INPUT_SOURCES = ("ddr", "pyramid", "resizer")


def sram_bytes(options: CompileOptions, march: March) -> int:
    """The SRAM size to compile for: the option's, else the march's. Raises BackendError when it makes no sense."""
    size = march.sram_bytes if options.sram_bytes is None else options.sram_bytes
    if not 256 <= size <= MAX_SRAM_BYTES:
        raise BackendError(
            "compile_cfg.sram_bytes is out of range",
            seen=str(size),
            allowed=f"256 to {MAX_SRAM_BYTES}",
            remedy="leave it out",
        )
    return size // 16 * 16


def check_options(options: CompileOptions) -> None:
    """Raise BackendError for a level or an input source that does not exist."""
    for key, value, allowed in (
        ("opt", options.opt, OPT_LEVELS),
        ("input_source", options.input_source, INPUT_SOURCES),
    ):
        if value not in allowed:
            raise BackendError(f"compile_cfg.{key} is unknown", seen=str(value), allowed=", ".join(allowed))


def options_digest(options: CompileOptions, march: March) -> str:
    """SHA-256 of the options that a program depends on: march, name, opt, SRAM size, input source."""
    fields = {
        "march": march.name,
        "name": options.name,
        "opt": options.opt,
        "sram_bytes": sram_bytes(options, march),
        "input_source": options.input_source,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
