"""EfficientNet trunks (Tan and Le 2019, arXiv:1905.11946) and their Lite form, written for tracing and quantization.

Shapes: ``N`` batch, ``C H W`` channels, rows, columns. A trunk maps an image ``[N, 3, H, W]`` to five feature maps
``[N, C_i, H / s_i, W / s_i]`` with strides ``s_i`` of 2, 4, 8, 16 and 32.

Every activation is a module of its own and none works in place, so that hooks and graph passes see each tensor as it
was computed. Padding is symmetric (``k // 2``), unlike the original's, which pads only the far side of an even input.
"""

from __future__ import annotations

import difflib
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from carkp_core.errors import ConfigError

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6, "swish": nn.SiLU}


@frozen
class Stage:
    """A run of blocks with one kernel size; only the first block strides and changes the width."""

    kernel: int
    repeats: int
    channels: int
    expansion: int
    stride: int


@frozen
class Scaling:
    """How a member of the family is derived from b0."""

    width: float
    depth: float
    dropout: float
    #: The Lite members keep the stem, the 1280-channel top and the depth of the first and last stage.
    lite: bool = False


@frozen
class FeatureInfo:
    """What a head needs to know of one feature map."""

    channels: int
    stride: int


B0_STEM_CHANNELS = 32
B0_TOP_CHANNELS = 1280
B0_STAGES = (
    Stage(kernel=3, repeats=1, channels=16, expansion=1, stride=1),
    Stage(kernel=3, repeats=2, channels=24, expansion=6, stride=2),
    Stage(kernel=5, repeats=2, channels=40, expansion=6, stride=2),
    Stage(kernel=3, repeats=3, channels=80, expansion=6, stride=2),
    Stage(kernel=5, repeats=3, channels=112, expansion=6, stride=1),
    Stage(kernel=5, repeats=4, channels=192, expansion=6, stride=2),
    Stage(kernel=3, repeats=1, channels=320, expansion=6, stride=1),
)
MODEL_TYPES: Mapping[str, Scaling] = {
    "b0": Scaling(1.0, 1.0, 0.2),
    "b1": Scaling(1.0, 1.1, 0.2),
    "b2": Scaling(1.1, 1.2, 0.3),
    "b3": Scaling(1.2, 1.4, 0.3),
    "b4": Scaling(1.4, 1.8, 0.4),
    "b5": Scaling(1.6, 2.2, 0.4),
    "b6": Scaling(1.8, 2.6, 0.5),
    "b7": Scaling(2.0, 3.1, 0.5),
    "lite0": Scaling(1.0, 1.0, 0.2, lite=True),
    "lite1": Scaling(1.0, 1.1, 0.2, lite=True),
    "lite2": Scaling(1.1, 1.2, 0.3, lite=True),
    "lite3": Scaling(1.2, 1.4, 0.3, lite=True),
    "lite4": Scaling(1.4, 1.8, 0.3, lite=True),
}


def scale_channels(channels: int, width: float) -> int:
    """Scale a width to a multiple of 8 that is at least 90 % of what was asked for."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def scale_stages(scaling: Scaling) -> tuple[Stage, ...]:
    """Widen and deepen b0's stages."""
    last = len(B0_STAGES) - 1
    return tuple(
        Stage(
            kernel=stage.kernel,
            repeats=stage.repeats if scaling.lite and i in (0, last) else math.ceil(stage.repeats * scaling.depth),
            channels=scale_channels(stage.channels, scaling.width),
            expansion=stage.expansion,
            stride=stage.stride,
        )
        for i, stage in enumerate(B0_STAGES)
    )


@frozen
class LayerStyle:
    """The choices that all layers of a network share."""

    activation: str
    use_se_block: bool
    bn_kwargs: Mapping[str, Any]

    def conv_bn(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
        """Return a convolution without bias and its batch norm: ``[N, c_in, H, W]`` to ``[N, c_out, H/s, W/s]``."""
        conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(c_out, **self.bn_kwargs)))

    def conv_bn_act(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
        """Return :meth:`conv_bn` with the activation behind it."""
        layers = self.conv_bn(c_in, c_out, kernel, stride, groups)
        layers.add_module("act", self.act())
        return layers

    def act(self) -> nn.Module:
        """Return a new activation module."""
        return ACTIVATIONS[self.activation]()


class SqueezeExcite(nn.Module):
    """Weigh channels by a gate computed from their means: ``[N, C, H, W]`` to the same shape."""

    def __init__(self, channels: int, squeezed: int, act: nn.Module) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = act
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.act(self.reduce(self.pool(x)))
        gated: Tensor = x * self.gate(self.expand(squeezed))
        return gated


class MBConv(nn.Module):
    """Inverted residual: expand 1x1, filter each channel, squeeze and excite (if asked for), project 1x1."""

    def __init__(self, c_in: int, stage: Stage, stride: int, style: LayerStyle) -> None:
        super().__init__()
        wide = c_in * stage.expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if stage.expansion != 1:
            layers["expand"] = style.conv_bn_act(c_in, wide)
        layers["depthwise"] = style.conv_bn_act(wide, wide, stage.kernel, stride, groups=wide)
        if style.use_se_block:
            layers["se"] = SqueezeExcite(wide, max(1, c_in // 4), style.act())
        layers["project"] = style.conv_bn(wide, stage.channels)
        self.layers = nn.Sequential(layers)
        self.residual = stride == 1 and c_in == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class EfficientNet(nn.Module):
    """The trunk, and with ``num_classes`` the classifier on top.

    Attributes
    ----------
    feature_info:
        Channels and stride of each of the five feature maps.
    """

    def __init__(
        self, scaling: Scaling, style: LayerStyle, in_channels: int = 3, num_classes: int | None = None
    ) -> None:
        super().__init__()
        fixed_width = 1.0 if scaling.lite else scaling.width
        channels = scale_channels(B0_STEM_CHANNELS, fixed_width)
        self.stem = style.conv_bn_act(in_channels, channels, kernel=3, stride=2)
        stages = scale_stages(scaling)
        self.stages = nn.ModuleList()
        for stage in stages:
            blocks = []
            for i in range(stage.repeats):
                blocks.append(MBConv(channels, stage, stage.stride if i == 0 else 1, style))
                channels = stage.channels
            self.stages.append(nn.Sequential(*blocks))

        #: A feature map is the last one of its stride.
        self._tapped = tuple(i for i in range(len(stages)) if i + 1 == len(stages) or stages[i + 1].stride == 2)
        strides = [2 * math.prod(stage.stride for stage in stages[: i + 1]) for i in range(len(stages))]
        self.feature_info = tuple(FeatureInfo(stages[i].channels, strides[i]) for i in self._tapped)
        self.top: nn.Module | None = None
        if num_classes is not None:
            wide = scale_channels(B0_TOP_CHANNELS, fixed_width)
            self.top = nn.Sequential(
                OrderedDict(
                    conv=style.conv_bn_act(channels, wide),
                    pool=nn.AdaptiveAvgPool2d(1),
                    flatten=nn.Flatten(),
                    dropout=nn.Dropout(scaling.dropout),
                    fc=nn.Linear(wide, num_classes),
                )
            )
        self.apply(_initialize)

    def forward(self, image: Tensor) -> tuple[Tensor, ...] | Tensor:
        """Map ``[N, 3, H, W]`` to the five feature maps, or to logits ``[N, num_classes]`` if there is a top."""
        x = self.stem(image)
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self._tapped:
                features.append(x)
        return tuple(features) if self.top is None else self.top(x)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.groups > 1:  # torch's fan-out ignores groups: a depthwise filter has one output for each input
            with torch.no_grad():
                module.weight.mul_(math.sqrt(module.groups))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=1.0 / math.sqrt(module.out_features))
        nn.init.zeros_(module.bias)


def efficientnet(
    model_type: str = "b0",
    num_classes: int = 1000,
    bn_kwargs: Mapping[str, Any] | None = None,
    activation: str = "relu",
    use_se_block: bool = False,
    include_top: bool = False,
    in_channels: int = 3,
) -> EfficientNet:
    """Build a member of the EfficientNet family.

    Parameters
    ----------
    model_type:
        ``"b0"`` to ``"b7"``, or ``"lite0"`` to ``"lite4"``, which scale neither stem nor top.
    num_classes:
        Outputs of the classifier; without ``include_top`` there is none, and the number is not used.
    bn_kwargs:
        Arguments of every ``nn.BatchNorm2d`` (``eps``, ``momentum``).
    activation:
        ``"relu"``, ``"relu6"`` or ``"swish"``.
    use_se_block:
        Squeeze-and-excite inside every block, as the original (not Lite) networks have it.
    include_top:
        Add the 1280-channel convolution and the classifier; the network then returns logits.
    in_channels:
        Channels of the image.

    Raises
    ------
    ConfigError
        An unknown ``model_type`` or ``activation``, or an argument that batch norm doesn't have.
    """
    scaling = _choose("model_type", model_type, MODEL_TYPES)
    _choose("activation", activation, ACTIVATIONS)
    _check_bn_kwargs(bn_kwargs or {})
    style = LayerStyle(activation, use_se_block, dict(bn_kwargs or {}))
    return EfficientNet(scaling, style, in_channels, num_classes if include_top else None)


def _check_bn_kwargs(bn_kwargs: Mapping[str, Any]) -> None:
    try:
        nn.BatchNorm2d(1, **bn_kwargs)
    except TypeError as error:
        raise ConfigError(
            "efficientnet: bn_kwargs are not arguments of nn.BatchNorm2d",
            seen=str(error),
            allowed="eps, momentum, affine, track_running_stats",
        ) from error


def _choose(argument: str, key: str, table: Mapping[str, Any]) -> Any:
    if key in table:
        return table[key]
    close = difflib.get_close_matches(str(key), table, n=1)
    raise ConfigError(
        f"efficientnet: unknown {argument} {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
        allowed=", ".join(table),
    )
