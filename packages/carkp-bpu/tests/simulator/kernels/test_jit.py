"""Kernels compile wherever the package is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import numpy as np
from carkp_bpu.simulator.kernels.elementwise import look_up
out = np.empty(3, np.int8)
look_up(np.array([-128, 0, 127], np.int8), np.arange(-128, 128).astype(np.int8), out)
print(out.tolist())
"""


def run(**environment: str) -> str:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=env).stdout


def test_machine_code_is_kept_where_the_user_says(tmp_path: Path):
    assert run(NUMBA_CACHE_DIR=str(tmp_path)).strip() == "[-128, 0, 127]"
    assert list(tmp_path.rglob("*.nbi"))


def test_kernels_compile_where_nothing_can_be_written(tmp_path: Path):
    # A file where a folder is needed cannot be written to, whoever runs the test.
    (tmp_path / "file").write_text("")
    found = run(NUMBA_CACHE_DIR=str(tmp_path / "file" / "cache"))
    assert found.strip() == "[-128, 0, 127]"
