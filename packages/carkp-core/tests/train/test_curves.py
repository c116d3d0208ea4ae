from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from carkp_core.train.curves import draw_curves

HISTORY = [
    {"epoch": 0, "step": 4, "lr": 0.1, "loss": 2.0, "PCK@0.1": 0.3},
    {"epoch": 1, "step": 8, "lr": 0.0, "loss": 1.0},
    {"epoch": 2, "step": 12, "lr": 0.0, "loss": float("nan"), "PCK@0.1": float("nan")},
]


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    draw_curves(HISTORY, [(2, 2.5, 0.1), (4, 1.5, 0.05)], tmp_path / "with.png")
    draw_curves(HISTORY, [], tmp_path / "without.png")
    draw_curves([], [], tmp_path / "nothing.png")
    assert (tmp_path / "with.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "without.png").exists()
    assert not (tmp_path / "nothing.png").exists()


def test_matplotlib_is_imported_only_when_drawing() -> None:
    code = "import carkp_core.train.trainer, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
