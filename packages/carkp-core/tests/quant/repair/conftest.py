from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
# Networks that the tests of repair passes share stand beside this file, small tasks beside the trainer's tests.
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "train")]
