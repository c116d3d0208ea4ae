"""The digest of compile options: what tells a program on disk from one that would be compiled now."""

from __future__ import annotations

import hashlib
import json

from carkp_core.backend import CompileOptions

#: The options that change a program's bytes. Paths and the form of reports do not.
PROGRAM_OPTIONS = ("march", "name", "opt", "sram_bytes", "input_source")


def options_digest(options: CompileOptions) -> str:
    """SHA-256 over the options that change a program's bytes."""
    chosen = {name: getattr(options, name) for name in PROGRAM_OPTIONS}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()
