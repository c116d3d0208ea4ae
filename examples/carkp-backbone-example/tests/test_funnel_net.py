"""The backbone trains, quantizes, and runs on every march that carkp-bpu offers, to the last bit."""

import pytest
import torch
from carkp_backbone_example.funnel_net import Funnel, FunnelNet

from carkp_core.plugins import plugin_manager
from carkp_core.testing import check_backbone


def test_the_backbone_is_all_that_carkp_asks():
    marches = [march for backend in plugin_manager().backends() for march in backend.marches]
    assert "bayes" in marches
    check_backbone(FunnelNet(width=8), marches=marches)


def test_feature_maps():
    maps = FunnelNet(width=8, depth=2)(torch.zeros(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 32, 48), (16, 16, 24), (32, 8, 12), (64, 4, 6)]


def test_the_funnel_is_the_larger_of_a_pixel_and_its_window():
    funnel = Funnel(1).eval()
    with torch.no_grad():
        funnel.window.weight.fill_(1.0)
        x = torch.tensor([[[[1.0, -2.0], [0.0, 5.0]]]])
        assert torch.allclose(funnel(x), torch.full_like(x, 4.0).maximum(x), atol=1e-3)


@pytest.mark.parametrize("width", [0, 7])
def test_a_width_that_has_no_half(width):
    with pytest.raises(ValueError, match="even"):
        FunnelNet(width=width)


def test_configs_find_it_by_name():
    assert plugin_manager().catalog().resolve("FunnelNet") is FunnelNet
