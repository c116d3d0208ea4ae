from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

# Modules that several tests share stand beside this file.
sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy config, its float and calibration stages run. Not to be written to."""
    from report_toys import train

    folder = tmp_path_factory.mktemp("report")
    train(folder, "float", "calibration")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    from report_toys import copied

    return copied(trained, tmp_path)
