"""Bias correction takes means of errors away, with data and without."""

from __future__ import annotations

import pytest
import torch
from exact_networks import differing
from repair_nets import KeypointNet, calibrate, float_outputs, images, lively, noise_share, prepared
from torch import nn

from carkp_core.errors import ConfigError
from carkp_core.quant.convert import convert
from carkp_core.quant.layer import Bounds
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.bias_correction import BiasCorrection
from carkp_core.quant.repair.normal import Moments
from carkp_core.quant.settings import quant_settings


def coarse(seed: int, mode: str = "fuse_bn") -> QuantizedNetwork:
    """Weights of one great value in each row, so that rounding the others moves the means."""
    net = lively(KeypointNet(), seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.groups == 1 and module.in_channels > 3:
                module.weight.abs_()
                module.weight[:, 0] *= 60.0
    return prepared(net, settings=quant_settings(mode))


def mean_error(network: QuantizedNetwork, x: torch.Tensor, wanted: list[torch.Tensor]) -> float:
    with torch.no_grad():
        got = network(x)
    return float((got - wanted[0]).mean(dim=(0, 2, 3)).abs().mean())


@pytest.mark.parametrize("mode", ["fuse_bn", "with_bn"])
def test_the_outputs_means_are_those_of_the_float_network(mode: str) -> None:
    seen, x = images(48, seed=1), images(48, seed=2)
    network = coarse(0, mode)
    wanted = float_outputs(network, x)
    calibrate(network, seen)
    before, noise = mean_error(network, x, wanted), noise_share(network, x, wanted)
    BiasCorrection().after_calibration(network, [(seen,)])
    assert mean_error(network, x, wanted) < 0.3 * before
    assert noise_share(network, x, wanted) < noise
    report = network.repairs[0]
    assert report["output_sqnr_db_after"] > report["output_sqnr_db_before"]
    assert len(report["layers"]) == 9
    assert differing(network, convert(network, "net"), x) == {}


def test_batch_norms_say_where_the_means_go_without_data() -> None:
    """Inputs that are what the batch norms say: the analytic correction finds the empirical one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1)).eval()
    x = torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        sums = net[0](x)
        net[1].running_mean.copy_(sums.mean(dim=(0, 2, 3)))
        net[1].running_var.copy_(sums.var(dim=(0, 2, 3)))
        nn.init.normal_(net[1].bias)
        net[3].weight.abs_()
        net[3].weight[:, 0] *= 60.0
    network = calibrate(prepared(net), x)
    wanted = float_outputs(network, x)
    before = mean_error(network, x, wanted)
    BiasCorrection("analytic").after_calibration(network, [(x,)])
    assert mean_error(network, x, wanted) < 0.35 * before
    # The first layer's input is an image, of which nothing is known.
    assert network.repairs[0]["left_alone"] == ["0"]
    assert list(network.repairs[0]["layers"]) == ["3"]


def test_layers_without_bias_and_layers_used_twice_are_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bare, self.twice = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.twice(self.twice(self.bare(x).relu()).relu())  # type: ignore[no-any-return]

    x = images(8)
    network = calibrate(prepared(Twice().eval()), x)
    state = {name: value.clone() for name, value in network.state_dict().items() if isinstance(value, torch.Tensor)}
    BiasCorrection().after_calibration(network, [(x,)])
    assert network.repairs[0]["left_alone"] == ["bare", "twice", "twice_2"]
    assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())


@pytest.mark.parametrize(("mode", "count", "seed"), [("empirical", 3, 1), ("analytic", 1, 3)])
@pytest.mark.parametrize("batch_norm", ["fuse_bn", "with_bn"])
def test_a_correction_that_a_few_images_make_worse_is_taken_back(
    mode: str, count: int, seed: int, batch_norm: str
) -> None:
    x = images(count, seed=seed)
    network = calibrate(prepared(lively(KeypointNet(), seed), settings=quant_settings(batch_norm)), x)
    before = convert(network, "net").digest()
    BiasCorrection(mode).after_calibration(network, [(x,)])
    report = network.repairs[0]
    assert report["output_sqnr_db_corrected"] < report["output_sqnr_db_before"]
    assert report["output_sqnr_db_after"] == report["output_sqnr_db_before"]
    assert "left as it was" in report["summary"]
    assert not report["kept"]
    assert convert(network, "net").digest() == before


@pytest.mark.parametrize("bounds", [Bounds(0.0, None), Bounds(0.0, 6.0), Bounds(-1.0, 1.0), Bounds(None, 2.0)])
def test_moments_of_clipped_normals(bounds: Bounds) -> None:
    generator = torch.Generator().manual_seed(0)
    mean, deviation = torch.tensor([0.0, -2.0, 3.0, 5.5]).double(), torch.tensor([1.0, 0.7, 2.0, 1.0]).double()
    sample = bounds.apply(mean + deviation * torch.randn(400_000, 4, generator=generator, dtype=torch.float64))
    found = Moments(mean, deviation.square()).clamped(bounds)
    assert torch.allclose(found.mean, sample.mean(dim=0), atol=0.01)
    assert torch.allclose(found.variance, sample.var(dim=0), atol=0.03)


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown mode"):
        BiasCorrection("empircal")
    with pytest.raises(ConfigError, match="samples is below 1"):
        BiasCorrection(samples=0)
