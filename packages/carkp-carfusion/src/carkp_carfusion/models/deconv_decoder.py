"""Transposed convolutions that grow a trunk's last feature map into heatmaps (Xiao et al. 2018, arXiv:1804.06208).

Shapes: ``N`` batch, ``K`` keypoints, ``C H W`` a feature map. With L layers ``[N, C, H, W]`` becomes
``[N, K, H * 2**L, W * 2**L]``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from carkp_core.errors import ConfigError


class DeconvDecoder(nn.Module):
    """Doubling transposed convolutions with batch norm and ReLU, then one convolution to the heatmaps.

    Parameters
    ----------
    in_channels:
        Channels of the feature map that is taken.
    out_channels:
        Heatmaps, one for a keypoint.
    input_index:
        Which of the trunk's feature maps is taken.
    num_conv_layers:
        How many transposed convolutions there are.
    num_deconv_filters, num_deconv_kernels:
        Output channels and kernel size of each of them. Each doubles the map exactly.
    final_conv_kernel:
        Kernel size of the last convolution, odd.

    Raises
    ------
    ConfigError
        Lists of another length than ``num_conv_layers``, a kernel that cannot double a map, an even last kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_index: int = 4,
        num_conv_layers: int = 3,
        num_deconv_filters: Sequence[int] = (128, 128, 128),
        num_deconv_kernels: Sequence[int] = (4, 4, 4),
        final_conv_kernel: int = 3,
    ) -> None:
        super().__init__()
        for name, given in (("num_deconv_filters", num_deconv_filters), ("num_deconv_kernels", num_deconv_kernels)):
            if len(given) != num_conv_layers:
                raise ConfigError(
                    f"DeconvDecoder: {name} has {len(given)} entries for {num_conv_layers} layers",
                    seen=f"num_conv_layers={num_conv_layers}, {name}={list(given)}",
                    allowed="one entry for each layer",
                )
        if final_conv_kernel < 1 or final_conv_kernel % 2 == 0:
            raise ConfigError(
                "DeconvDecoder: an even final_conv_kernel would change the heatmaps' size",
                seen=f"final_conv_kernel={final_conv_kernel}",
                allowed="1, 3, 5, ...",
            )
        self.input_index = input_index
        self.in_channels = in_channels
        self.layers = nn.Sequential()
        channels = in_channels
        for filters, kernel in zip(num_deconv_filters, num_deconv_kernels, strict=True):
            self.layers.append(_doubling(channels, filters, kernel))
            channels = filters
        self.final = nn.Conv2d(channels, out_channels, final_conv_kernel, padding=final_conv_kernel // 2)
        # Heatmaps are zero nearly everywhere: starting there saves the first epoch.
        nn.init.normal_(self.final.weight, std=0.001)
        nn.init.zeros_(self.final.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map the trunk's feature maps to heatmaps ``[N, K, h, w]``."""
        return self.final(self.layers(features[self.input_index]))  # type: ignore[no-any-return]


def _doubling(c_in: int, c_out: int, kernel: int) -> nn.Sequential:
    """Return ``[N, c_in, H, W]`` to ``[N, c_out, 2 H, 2 W]``: (H - 1) * 2 - 2 p + k + o = 2 H, so 2 p = k - 2 + o."""
    if kernel < 2:
        raise ConfigError(
            "DeconvDecoder: a kernel smaller than the stride of 2 leaves holes",
            seen=f"num_deconv_kernels has {kernel}",
            allowed="2 or more",
        )
    odd = kernel % 2
    deconv = nn.ConvTranspose2d(
        c_in, c_out, kernel, stride=2, padding=(kernel - 2 + odd) // 2, output_padding=odd, bias=False
    )
    nn.init.kaiming_normal_(deconv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(OrderedDict(deconv=deconv, bn=nn.BatchNorm2d(c_out), act=nn.ReLU()))
