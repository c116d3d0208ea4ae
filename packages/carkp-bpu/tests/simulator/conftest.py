from __future__ import annotations

import sys
from pathlib import Path

# Modules that several tests share stand beside this file.
sys.path.insert(0, str(Path(__file__).parent))
# The conformance sample belongs to the repository, not to a package: its root is importable here.
sys.path.append(str(Path(__file__).parents[4]))
