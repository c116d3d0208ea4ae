from __future__ import annotations

import sys
from pathlib import Path

# Networks that the tests of repair passes share stand beside this file.
sys.path.insert(0, str(Path(__file__).parent))
