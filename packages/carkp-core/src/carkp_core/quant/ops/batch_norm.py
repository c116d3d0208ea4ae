"""Batch norm: folded into the convolution before it, otherwise a depthwise 1x1 convolution of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from carkp_core.quant.layer import Layer
from carkp_core.quant.operators import Call, OperatorDefinition, is_tensor
from carkp_core.quant.ops.convolution import Conv2d
from carkp_core.quant.ops.move import Reshape
from carkp_core.quant.ops.weighted import fold


class BatchNorm(Layer):
    """Holds a batch norm until ``fold_batch_norm`` has found its place; it has no integer form itself."""

    kind: ClassVar[str] = "batch_norm"
    integer: ClassVar[bool] = False

    def __init__(self, bn: nn.BatchNorm2d) -> None:
        super().__init__()
        self.bn = bn

    def float_forward(self, *inputs: Tensor) -> Tensor:
        bn = self.bn
        statistics = (bn.running_mean, bn.running_var, bn.weight, bn.bias)
        return nn.functional.batch_norm(inputs[0], *statistics, training=False, eps=bn.eps)

    def as_convolution(self) -> Conv2d:
        """The depthwise 1x1 convolution that equals it."""
        channels = self.bn.num_features
        conv = Conv2d(torch.ones(channels, 1, 1, 1), None, groups=channels)
        weight, bias = fold(conv, conv.weight, None, self.bn)
        made = Conv2d(weight, bias, groups=channels)
        made.origin = self.origin
        return made


def _lower(call: Call) -> fx.Node | None:
    args = call.args
    x, mean, var = args["input"], args["running_mean"], args["running_var"]
    if not is_tensor(x) or mean is None or var is None or len(call.shape_of(x)) not in (2, 3, 4):
        return None
    bn = nn.BatchNorm2d(len(mean), eps=args["eps"], momentum=args["momentum"])
    with torch.no_grad():
        _copy(bn.running_mean, mean)
        _copy(bn.running_var, var)
        _copy(bn.weight, 1.0 if args["weight"] is None else args["weight"])
        _copy(bn.bias, 0.0 if args["bias"] is None else args["bias"])
    layer = BatchNorm(bn)
    # The statistics tell two batch norms apart that have no parameters.
    layer.origin = (id(mean), id(var), id(args["weight"]), id(args["bias"]))
    n, channels, *size = call.shape_of(x)
    if len(size) == 2:
        return call.emit(layer, x)
    spatial = (channels, *size, *(1,) * (2 - len(size)))
    x = call.emit(layer, _spatial(call, x, spatial), shape=(n, *spatial))
    return call.emit(Reshape((channels, *size)), x)


def _spatial(call: Call, x: fx.Node, shape: tuple[int, ...]) -> fx.Node:
    """[N, C] or [N, C, L] as a map; behind a linear layer, the map that its convolution gives, so that it can fold."""
    before = call.layers.sources(x)
    batch = call.shape_of(x)[0]
    if isinstance(call.layers.layer(x), Reshape) and call.shape_of(before[0]) == (batch, *shape):
        return before[0]
    return call.emit(Reshape(shape), x, shape=(batch, *shape))


def _copy(target: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        target.copy_(value.detach())
    else:
        target.fill_(value)


BATCH_NORM = OperatorDefinition(
    "batch_norm",
    _lower,
    calls=("batch_norm",),
    parameters=(
        "input", "running_mean", "running_var", "weight=None", "bias=None", "training=False", "momentum=0.1",
        "eps=1e-5", "cudnn_enabled=True",
    ),
)  # fmt: skip
