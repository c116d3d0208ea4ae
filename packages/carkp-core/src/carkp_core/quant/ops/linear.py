"""A linear layer is a 1x1 convolution between reshapes: [N, ..., F] -> [N, F, T, 1] -> [N, O, T, 1] -> [N, ..., O]."""

from __future__ import annotations

import math

from torch import fx

from carkp_core.quant.layer import origin_of
from carkp_core.quant.operators import Call, OperatorDefinition, is_constant, is_tensor
from carkp_core.quant.ops.convolution import Conv2d
from carkp_core.quant.ops.move import Reshape, Transpose


def _lower(call: Call) -> fx.Node | None:
    x, weight, bias = call.args["input"], call.args["weight"], call.args["bias"]
    if not is_tensor(x) or not is_constant(weight) or not call.batched(x):
        return None
    conv = Conv2d(weight[:, :, None, None], bias)
    conv.origin = origin_of(weight, bias)
    batch, *between, features = call.shape_of(x)
    outputs = weight.shape[0]
    if not between:
        x = call.emit(Reshape((features, 1, 1)), x, shape=(batch, features, 1, 1))
        x = call.emit(conv, x, shape=(batch, outputs, 1, 1))
        return call.emit(Reshape((outputs,)), x)
    count = math.prod(between)
    x = call.emit(Reshape((count, features)), x, shape=(batch, count, features))
    x = call.emit(Transpose((0, 2, 1)), x, shape=(batch, features, count))
    x = call.emit(Reshape((features, count, 1)), x, shape=(batch, features, count, 1))
    x = call.emit(conv, x, shape=(batch, outputs, count, 1))
    x = call.emit(Reshape((outputs, count)), x, shape=(batch, outputs, count))
    x = call.emit(Transpose((0, 2, 1)), x, shape=(batch, count, outputs))
    return call.emit(Reshape((*between, outputs)), x)


LINEAR = OperatorDefinition("linear", _lower, calls=("linear",), parameters=("input", "weight", "bias=None"))
