"""Scales that follow the ranges in QAT; two processes are in ``train/test_qat.py``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exact_networks import calibrated
from torch import nn

from carkp_core.errors import ConfigError, QuantizationError
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.ranges import LOOK_SAMPLES, LOOK_STEPS, joint_samples, main_process_says
from carkp_core.quant.scales import HEADROOM
from carkp_core.quant.settings import quant_settings, range_follower
from carkp_core.quant.types import set_types

torch.set_num_threads(1)


def following(**kwargs: Any) -> tuple[QuantizedNetwork, torch.Tensor]:
    """A network calibrated on x, that follows the ranges in training."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval(), torch.randn(12, 3, 8, 8)
    params = {"activation_qat_observer": "moving_average", "activation_qat_qkwargs": kwargs}
    return calibrated(net, x, settings=quant_settings("fuse_bn", params)).train(), x


def scales(network: QuantizedNetwork) -> list[float]:
    return [float(layer.scale) for _, layer in network.scaled_layers()]


def test_scales_move_a_part_of_the_way_to_the_present_ranges() -> None:
    network, x = following(averaging_constant=0.25)
    before = scales(network)
    network(2 * x)
    seen = [calibrated_scale * 2 for calibrated_scale in before[:1]]  # the input's range doubles
    look = float((2 * x[:LOOK_SAMPLES]).abs().max()) / 127
    assert look <= seen[0]
    assert scales(network)[0] == pytest.approx(before[0] + 0.25 * (look - before[0]), rel=1e-6)
    after = scales(network)
    for _ in range(LOOK_STEPS - 1):
        network(2 * x)
    assert scales(network) == after
    network(2 * x)
    assert scales(network) != after


def test_a_look_at_zeros_moves_no_scale_of_what_is_zero() -> None:
    network, x = following()
    with torch.no_grad():
        for conv in (network.layer("0"), network.layer("2")):
            conv.bias.zero_()
    before = scales(network)
    network(torch.zeros_like(x))
    assert scales(network) == before


def test_a_look_at_nan_is_an_error_that_names_the_layer() -> None:
    network, x = following()
    before = scales(network)
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(QuantizationError, match="cannot be calibrated") as caught:
        network(x)
    assert (caught.value.where, caught.value.seen) == ("img", "NaN in the network input, in training")
    assert scales(network) == before


def test_an_int16_tensor_keeps_its_headroom() -> None:
    network, x = following(averaging_constant=1.0)
    set_types(network, {"2": "int16"})
    network(x)
    with torch.no_grad():
        greatest = float(network.float_values((x[:LOOK_SAMPLES],))["2"].abs().max())
    assert float(network.layer("2").scale) * 32767 == pytest.approx(HEADROOM * greatest, rel=1e-6)


def test_frozen_scales_and_evaluation_stay() -> None:
    network, x = following()
    before = scales(network)
    network.eval()(3 * x)
    network.train().freeze_scales()
    network(3 * x)
    assert scales(network) == before


def test_the_state_knows_when_to_look_next() -> None:
    network, x = following()
    for _ in range(5):
        network(x)
    other, _ = following()
    other.load_state_dict(network.state_dict())
    for _ in range(LOOK_STEPS):
        network(3 * x)
        other(3 * x)
        assert scales(network) == scales(other)


def test_alone_the_joint_batch_is_the_batch() -> None:
    (image,) = joint_samples([torch.arange(12).reshape(12, 1)], 8)
    assert image.flatten().tolist() == list(range(8))
    assert main_process_says({"a": 1.5}) == {"a": 1.5}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"activation_qat_observer": "lerned"}, "unknown observer 'lerned'"),
        (
            {"activation_qat_observer": "moving_average", "activation_qat_qkwargs": {"averaging_constant": 2}},
            "averaging_constant is a share",
        ),
        (
            {"activation_qat_observer": "learned", "activation_qat_qkwargs": {"percentile": 99}},
            "learned scales take no arguments",
        ),
        ({"activation_qat_observer": "min_max", "activation_qat_qkwargs": {"percent": 99}}, "cannot be made"),
    ],
)
def test_bad_settings_are_named(params: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        range_follower(quant_settings("fuse_bn", params))


def test_what_follows_nothing() -> None:
    for observer in (None, "learned", "fixed_scale"):
        assert range_follower(quant_settings("fuse_bn", {"activation_qat_observer": observer})) is None
