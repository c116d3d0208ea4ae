"""Each rule of a single instruction has a case that breaks it."""

from __future__ import annotations

import attrs
import pytest

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.validity import check_instruction

MAP = isa.FeatureMap(64, 1, 8, 8, 4, 4, 32, 8, 0, 0)
VIEW = isa.View(0, 1, (32, 4, 0, 1))
CONV = isa.Conv(
    isa.NO_WAITS, MAP, MAP, None, 1, 2, (0, 8), (0, 8), (3, 3), (1, 1), (1, 1), (1, 1), 1, -128, 127
)  # fmt: skip
POOL = isa.Pool(
    isa.NO_WAITS, MAP, MAP, 1, (0, 8), (0, 8), (3, 3), (1, 1), (1, 1), (1, 1), (0, 3), 1, 1, 0, 9, 3,
    (0, 0, 10, 10), -128, 127,
)  # fmt: skip
RESCALE = isa.Rescale(isa.NO_WAITS, (8, 8, 1, 4), VIEW, VIEW, 1 << 30, 30, -128, 127)
TABLE = isa.Table(isa.NO_WAITS, (8, 8, 1, 4), VIEW, VIEW, 512, 256, 1, 0)


@pytest.mark.parametrize(
    ("instruction", "changes", "message"),
    [
        (CONV, {"rows": (0, 9)}, "rows 0..9 of 8"),
        (CONV, {"columns": (3, 3)}, "columns 3..3 of 8"),
        (CONV, {"groups": 3}, "3 groups of 4 and 4 channels"),
        (CONV, {"groups": 0}, "0 groups"),
        (CONV, {"stride_hw": (0, 1)}, "stride_hw .* not positive"),
        (CONV, {"lo": 5, "hi": 4}, "lo 5 is above hi 4"),
        (CONV, {"input": attrs.evolve(MAP, dtype=3)}, "type code 3"),
        (CONV, {"input": attrs.evolve(MAP, pixel_pitch=3)}, "a pixel of 4 bytes every 3"),
        (CONV, {"input": attrs.evolve(MAP, ring_rows=0)}, "not positive"),
        (CONV, {"input": attrs.evolve(MAP, dtype=2, pixel_pitch=9)}, "multiples of 2"),
        (CONV, {"residual": isa.Residual(MAP, 1, 15, 0)}, "shift 15, outside 16..62"),
        (POOL, {"kernel_rows": (2, 4)}, "kernel_rows 2..4 of 3"),
        (POOL, {"mode": 2}, "mode is 2"),
        (POOL, {"output": attrs.evolve(MAP, channels=3)}, "4 channels become 3"),
        (RESCALE, {"shift": 0}, "shift 0, outside 1..62"),
        (RESCALE, {"dims": (8, 0, 1, 4)}, "not positive"),
        (RESCALE, {"output": isa.View(0, 1, (32, 0, 0, 1))}, "coincide"),
        (TABLE, {"entries": 255}, "255 entries"),
        (TABLE, {"entries": 513, "channel_stride": 4}, "not per channel"),
        (TABLE, {"input": isa.View(0, 2, (32, 8, 0, 2))}, "look up int8 only"),
    ],
)
def test_a_broken_rule_is_named(instruction, changes, message):
    check_instruction(instruction)
    with pytest.raises(ValueError, match=message):
        check_instruction(attrs.evolve(instruction, **changes))
