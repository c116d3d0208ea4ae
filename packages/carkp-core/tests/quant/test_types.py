"""What a state says of types and clamps is what the network then has."""

from __future__ import annotations

import copy

import pytest
import torch
from exact_networks import differing
from torch import nn

from carkp_core.quant.convert import convert
from carkp_core.quant.layer import Bounds
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.prepare import prepare
from carkp_core.quant.repair.equalize import CrossLayerEqualization
from carkp_core.quant.types import chosen_forms, set_types, take_forms, unclamp

torch.set_num_threads(1)


def network(x: torch.Tensor, *repairs: CrossLayerEqualization) -> QuantizedNetwork:
    """Calibrated; x stays below the ReLU6's 6, ten times x doesn't."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU6(), nn.Conv2d(6, 6, 1), nn.ReLU6(), nn.Conv2d(6, 2, 1)).eval()
    made = prepare(net, {"img": x[:1]}).eval()
    for repair in repairs:
        repair.before_calibration(made, [(x,)])
    made.start_observing()
    made(x)
    made.finish_observing()
    return made


def test_a_plain_state_puts_clamps_back() -> None:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, repaired = network(x), network(x, CrossLayerEqualization(replace_relu6=True))
    state = copy.deepcopy(repaired.state_dict())
    assert repaired.unclamped == ["0", "2"]
    far = 10.0 * x
    output = plain.output_names[0]
    with torch.no_grad():
        before = plain.float_values([far])[output]
        assert not torch.allclose(repaired.float_values([far])[output], before, atol=1e-3)
        repaired.load_state_dict(plain.state_dict())
        assert torch.equal(repaired.float_values([far])[output], before)
    assert (repaired.unclamped, repaired.equalizations) == ([], [])
    assert convert(repaired, "net").digest() == convert(plain, "net").digest()
    assert differing(repaired, convert(plain, "net"), far) == {}
    # And off again, and on again.
    for wanted, unclamped in ((state, ["0", "2"]), (plain.state_dict(), [])):
        repaired.load_state_dict(wanted)
        assert repaired.unclamped == unclamped
    assert repaired.layer("0").bounds == Bounds(0.0, 6.0)


def test_a_state_that_says_nothing_changes_nothing() -> None:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    repaired = network(x, CrossLayerEqualization(replace_relu6=True))
    set_types(repaired, {"0": "int16"})
    before = copy.deepcopy(chosen_forms(repaired))
    assert before["int16"] == ["0"]
    assert before["equalizations"]
    take_forms(repaired, {})
    assert chosen_forms(repaired) == before


@pytest.mark.parametrize("times", [1, 2])
def test_a_clamp_is_remembered_however_often_it_is_taken_off(times: int) -> None:
    made = network(torch.ones(1, 3, 4, 4))
    for _ in range(times):
        unclamp(made, "0")
    assert made.layer("0").bounds == Bounds(0.0, None)
    take_forms(made, {"unclamped": []})
    assert made.layer("0").bounds == Bounds(0.0, 6.0)
