from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from carkp_carfusion.models.deconv_decoder import DeconvDecoder
from carkp_core.errors import ConfigError

TUTORIAL: dict[str, Any] = {
    "in_channels": 320,
    "out_channels": 12,
    "input_index": 4,
    "num_conv_layers": 3,
    "num_deconv_filters": [128, 128, 128],
    "num_deconv_kernels": [4, 4, 4],
    "final_conv_kernel": 3,
}


def test_the_tutorials_head_grows_the_last_map_eightfold() -> None:
    head = DeconvDecoder(**TUTORIAL).eval()
    features = [torch.zeros(0)] * 4 + [torch.zeros(2, 320, 4, 3)]
    assert head(features).shape == (2, 12, 32, 24)
    deconvs = [m for m in head.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [d.bias for d in deconvs] == [None] * 3
    assert head.final.bias is not None


@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 6])
def test_every_kernel_doubles_exactly(kernel: int) -> None:
    head = DeconvDecoder(8, 2, 0, 1, [4], [kernel], 1).eval()
    assert head([torch.zeros(1, 8, 5, 7)]).shape == (1, 2, 10, 14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_deconv_filters": [128, 128]}, "num_deconv_filters has 2 entries for 3 layers"),
        ({"num_deconv_kernels": [4]}, "num_deconv_kernels has 1 entries for 3 layers"),
        ({"num_deconv_kernels": [4, 4, 1]}, "leaves holes"),
        ({"final_conv_kernel": 2}, "even final_conv_kernel"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DeconvDecoder(**(TUTORIAL | change))
