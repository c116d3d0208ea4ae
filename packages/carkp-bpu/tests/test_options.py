"""Which options make another program."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from carkp_bpu.options import options_digest
from carkp_core.backend import CompileOptions

OPTIONS = CompileOptions(march="bayes", name="net", hbm=Path("a.hbm"), out_dir=Path("a"))


@pytest.mark.parametrize(
    "change",
    [{"march": "nash-e"}, {"name": "other"}, {"opt": "O0"}, {"sram_bytes": 1 << 20}, {"input_source": "ddr"}],
)
def test_what_changes_the_bytes_changes_the_digest(change):
    assert options_digest(attrs.evolve(OPTIONS, **change)) != options_digest(OPTIONS)


@pytest.mark.parametrize("change", [{"hbm": Path("b.hbm")}, {"out_dir": Path("b")}, {"layer_details": False}])
def test_what_does_not_change_the_bytes_does_not(change):
    assert options_digest(attrs.evolve(OPTIONS, **change)) == options_digest(OPTIONS)
