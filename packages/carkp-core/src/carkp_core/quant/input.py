"""Where floats become integers."""

from __future__ import annotations

from torch import Tensor

from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.quant import exact
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import Layer


class Input(Layer):
    """An input of the network. A fixed scale (1/128 for pixels minus 128) is never observed."""

    kind = "input"

    def __init__(self, fixed_scale: float | None) -> None:
        super().__init__()
        self.fixed = fixed_scale is not None
        if fixed_scale is not None:
            self.scale.fill_(fixed_scale)

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def quantize(self, values: Tensor) -> QTensor:
        """The integer input."""
        scale = self.wanted_scale()
        return QTensor(exact.quantize(values.float(), scale, *INT_RANGE[self.dtype]), scale, self.dtype)
