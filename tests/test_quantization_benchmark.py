"""The quantization benchmark compares each way with the float model of the same seed."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmark_module() -> Any:
    """The benchmark, which is part of the checkout and of no package."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module("benchmarks.quantization")
    finally:
        sys.path.remove(str(ROOT))


def test_a_seed_that_could_not_be_quantized_shifts_no_other(benchmark_module: Any, tmp_path: Path) -> None:
    def scored(share: float) -> Any:
        pck = dict.fromkeys(("PCK@0.02", "PCK@0.05", "PCK@0.1"), share)
        return benchmark_module.Score(pck, mean_dist=1.0, seconds=1.0, peak_mb=1.0)

    scores = {
        benchmark_module.FLOAT: {0: scored(0.5), 1: scored(0.7), 2: scored(0.9)},
        "way": {0: scored(0.49), 2: scored(0.88)},
    }
    assert benchmark_module.losses(scores, "way")["PCK@0.1"] == pytest.approx([1.0, 2.0])
    benchmark_module._keep(tmp_path, scores)
    assert list(json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["way"]) == ["0", "2"]
