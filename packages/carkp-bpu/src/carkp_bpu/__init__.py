"""carkp's BPU backend: operator checker, integer simulators, compiler, ``.hbm`` container and performance model."""

from __future__ import annotations

__version__ = "0.1.0"
