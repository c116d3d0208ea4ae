"""Int16 where it is asked for: exact, finer, and in the state that the next stage starts from."""

from __future__ import annotations

import pytest
import torch
from byte_npu import bytes_context, context
from exact_networks import calibrated, differing
from repair_nets import Everywhere, KeypointNet, calibrate, float_outputs, images, lively, noise_share, prepared
from torch import nn

from carkp_core.errors import ConfigError
from carkp_core.quant.convert import convert
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.int16 import Int16, weight_bits_lost
from carkp_core.quant.scales import HEADROOM
from carkp_core.quant.types import deciding, set_types, types


def repaired(network: QuantizedNetwork, repair: Int16, x: torch.Tensor) -> QuantizedNetwork:
    repair.before_calibration(network, [(x,)])
    calibrate(network, x)
    repair.after_calibration(network, [(x,)])
    return network


def test_chosen_tensors_are_int16_and_exact() -> None:
    x = images()
    network = repaired(prepared(lively(Everywhere(), 0)), Int16(["block.*", "fc1"], outputs=True), x)
    graph = convert(network, "net")
    dtypes = {node.name: node.type.dtype for node in graph.nodes}
    assert {name for name, dtype in dtypes.items() if dtype == "int16"} >= {
        "block.expand.0",
        "fc1_2",
        "after_six",
        network.output_names[1],
    }
    assert dtypes["stem.0"] == dtypes["six"] == "int8"
    assert differing(network, graph, x * 1.2) == {}


def test_int16_outputs_take_the_outputs_own_rounding_away() -> None:
    x, net = images(16), lively(KeypointNet(), 1)
    plain = calibrate(prepared(net), x)
    fine = repaired(prepared(net), Int16(outputs=True), x)
    wanted = float_outputs(plain, x)
    assert noise_share(fine, x, wanted) < 0.95 * noise_share(plain, x, wanted)
    assert fine.repairs[0]["tensors"] == ["final"]
    greatest = float(wanted[0].abs().max())
    assert float(fine.layer("final").scale) == pytest.approx(HEADROOM * greatest / 32767, rel=1e-3)


def test_a_table_has_the_type_of_what_it_reads() -> None:
    x = images()
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1)).eval()
    network = repaired(prepared(net), Int16("2"), x)
    assert deciding(network, "2") == "0"
    assert types(network) == {"img": "int8", "0": "int16", "1": "int16", "2": "int16", "3": "int8"}
    assert differing(network, convert(network, "net"), x * 1.2) == {}


def test_a_table_whose_own_type_differs_from_its_inputs_is_exact_still() -> None:
    x = images()
    for name, dtype in (("1", "int16"), ("0", "int16")):
        net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), nn.Conv2d(4, 2, 1)).eval()
        network = calibrated(net, x, dtypes={name: dtype})
        assert differing(network, convert(network, "net"), x) == {}


@pytest.mark.parametrize("training", [False, True])
def test_the_state_brings_the_types_along(training: bool) -> None:
    x, net = images(), lively(KeypointNet(), 2)
    network = repaired(prepared(net), Int16(["blocks.*.project.*", "final"]), x)
    state = network.state_dict()
    fresh = prepared(net)
    fresh.load_state_dict(state)
    assert types(fresh) == types(network)
    assert convert(fresh, "net").digest() == convert(network, "net").digest()
    if training:
        fresh.train()
        fresh(x).square().mean().backward()
        assert differing(fresh.eval(), convert(fresh, "net"), x) == {}
    # And back: a state of int8 everywhere undoes it.
    fresh.load_state_dict(calibrate(prepared(net), x).state_dict())
    assert set(types(fresh).values()) == {"int8"}


def test_wide_rows_lose_weight_bits_and_it_is_said() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 512, 1), nn.ReLU(), nn.Conv2d(512, 4, 3)).eval()
    with torch.no_grad():
        net[2].weight.fill_(0.1)  # type: ignore[operator]
    x = images(4)
    network = repaired(prepared(net), Int16("0"), x)
    # A row of 4608 weights of 127 steps would reach 585,216; int32 allows 65,536: 3.2 bits fewer.
    assert network.repairs[0]["weight_bits_lost"] == {"2": pytest.approx(3.16, abs=0.05)}
    set_types(network, {"0": "int8"})
    assert weight_bits_lost(network, (x,)) == {}


def test_a_wrong_pattern_names_layers() -> None:
    network = prepared(lively(KeypointNet(), 0))
    with pytest.raises(ConfigError, match=r"no layer matches 'block\.\*'") as caught:
        Int16("block.*").before_calibration(network, [(images(1),)])
    assert "stem.0" in (caught.value.seen or "")
    with pytest.raises(ConfigError, match="nothing is chosen"):
        Int16()


class PoolBeside(nn.Module):
    """A pool of the input beside a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.conv = nn.MaxPool2d(2), nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.pool(x), self.conv(x)]


def test_a_pattern_of_tensors_with_the_inputs_type_says_so() -> None:
    x = (images(2),)
    network = prepared(PoolBeside().eval())
    with pytest.raises(ConfigError, match="'pool' names can be used") as caught:
        Int16(["conv", "pool"]).before_calibration(network, [x])
    assert "has the type of the input img" in (caught.value.seen or "")
    assert caught.value.allowed == "conv"
    # One that stays beside others that do not is as asked for.
    Int16(outputs=True).before_calibration(network, [x])
    assert types(network) == {"img": "int8", "pool": "int8", "conv": "int16"}
    only = prepared(nn.Sequential(nn.MaxPool2d(2)).eval())
    with pytest.raises(ConfigError, match="outputs=True names can be used") as caught:
        Int16(outputs=True).before_calibration(only, [x])
    assert caught.value.allowed == "no layer of this network"


def test_what_the_march_refuses_is_said_with_its_rule() -> None:
    """ByteBackend refuses int16 of transposed convolutions, and any table."""
    x = images(4)
    net = lively(KeypointNet(), 0)
    fine = repaired(prepared(net), Int16(outputs=True, context=bytes_context()), x)
    assert fine.repairs[0]["refused_by_march"] == []
    assert "warning" not in fine.repairs[0]["summary"]
    refused = repaired(prepared(net), Int16(["up"], outputs=True, context=bytes_context()), x)
    assert refused.repairs[0]["refused_by_march"] == ["up: int8_only"]
    assert refused.repairs[0]["summary"].endswith("warning: march bytes refuses up: int8_only")
    # Asking changes nothing, and without a backend nobody is asked.
    alone = repaired(prepared(net), Int16(["up"], outputs=True, context=context()), x)
    assert alone.repairs[0]["refused_by_march"] == []
    assert convert(alone, "net").digest() == convert(refused, "net").digest()


def test_what_the_march_refuses_of_int8_too_is_not_blamed_on_int16() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.ConvTranspose2d(4, 2, 2, 2)).eval()
    network = repaired(prepared(net), Int16(outputs=True, context=bytes_context()), images(2))
    assert network.repairs[0]["refused_by_march"] == ["2: int8_only"]
