"""The integers of weighted layers: legal, proven, and kind to degenerate channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_core.errors import QuantizationError
from carkp_core.ir.arithmetic import multiplier_and_shift, rescale_ratio
from carkp_core.quant.constants import safe_scale, tensor_multiplier, weighted_constants

scales = st.floats(2.0**-40, 2.0**30, allow_nan=False)
weights = st.sampled_from([0.0, 1e-38, 1e-20, 1e-6, 1.0, -3.0, 50.0, 1e6, 1e20])
biases = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, -1e4, 1e9])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(weights, weights, biases), min_size=1, max_size=6), scales, scales, st.booleans(),
    st.sampled_from(["int8", "int16"]),
)  # fmt: skip
def test_every_shift_is_legal_and_every_sum_fits(
    channels: list[tuple[float, float, float]], scale_x: float, scale_y: float, in_add: bool, dtype: str
) -> None:
    rows = torch.tensor([c[:2] for c in channels])
    bias = torch.tensor([c[2] for c in channels])
    scale_x = float(np.float32(scale_x))
    c = weighted_constants(rows, bias, scale_x, dtype, float(np.float32(scale_y)), in_add, "layer")
    offset = 15 if in_add else 0
    assert ((c.shift - offset >= 2) & (c.shift - offset <= 62)).all()
    assert ((c.multiplier >= 1 << 30) & (c.multiplier < 1 << 31)).all()
    assert float(c.weight.abs().max()) <= 127
    assert c.bound <= (1 << 31) - 1
    assert c.scale_y >= float(np.float32(scale_y))
    assert set(c.dead) == {i for i, row in enumerate(c.weight) if not row.any()}


def test_the_multiplier_is_the_ratio_of_float32_scales() -> None:
    rng = np.random.default_rng(0)
    for scale_x, scale_w, scale_y in rng.uniform(1e-4, 1e-1, (50, 3)).astype(np.float32):
        ratio = rescale_ratio(scale_x, scale_w, scale_y)
        assert tensor_multiplier(float(scale_x), float(scale_w), float(scale_y)) == multiplier_and_shift(float(ratio))


def test_plain_channels_use_their_whole_range() -> None:
    rows = torch.tensor([[0.5, -1.0], [3.0, 2.0]])
    c = weighted_constants(rows, torch.tensor([0.25, -0.5]), 1 / 128, "int8", 0.1, False, "layer")
    assert c.weight.tolist() == [[64.0, -127.0], [127.0, 85.0]]
    assert c.bias.tolist() == [round(0.25 * 128 * 127), round(-0.5 * 128 * 127 / 3)]
    assert (c.raised, c.dead) == ((), ())


def test_a_dead_channel_keeps_its_bias() -> None:
    c = weighted_constants(torch.zeros(1, 4), torch.tensor([2.0]), 1 / 128, "int8", 2.0 / 127, False, "layer")
    ratio = c.multiplier[0] / 2.0 ** c.shift[0]
    assert c.dead == (0,)
    assert float(c.bias[0]) * ratio == pytest.approx(127.0)


def test_an_output_scale_too_fine_is_raised() -> None:
    c = weighted_constants(torch.full((1, 1), 1e6), None, 1.0, "int8", 1e-9, False, "layer")
    assert c.scale_y > 1e-9
    assert c.shift[0] == 2


def test_int16_inputs_cost_weight_bits() -> None:
    rows = torch.ones(1, 4000)
    c = weighted_constants(rows, None, 1e-4, "int16", 1e-3, False, "layer")
    assert 10 < float(c.weight.max()) < 127
    assert c.raised == (0,)


def test_a_sum_beyond_int32_is_refused_with_the_numbers() -> None:
    with pytest.raises(QuantizationError, match=r"accumulator may leave int32") as caught:
        weighted_constants(torch.ones(1, 140_000), None, 1e-4, "int8", 1e-3, False, "backbone.wide")
    assert caught.value.where == "backbone.wide"
    assert str(127 * 140_000) in (caught.value.seen or "")


def test_scales_of_odd_tensors_are_safe() -> None:
    assert safe_scale(0.0, "int8") == float(np.float32(1 / 127))
    assert safe_scale(1e-30, "int8") == 2.0**-60
    assert safe_scale(1e30, "int8") == 2.0**60
    assert safe_scale(3.0, "int16") == float(np.float32(3.0 / 32767))
