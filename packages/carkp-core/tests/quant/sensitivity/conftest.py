from __future__ import annotations

import sys
from pathlib import Path

import torch

# Modules that several tests share stand beside this file.
sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
