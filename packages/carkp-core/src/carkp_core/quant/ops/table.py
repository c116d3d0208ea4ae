"""Functions of one tensor: 256-entry tables (int8), 513 interpolated entries (int16), exact clamps.

Any scalar function is a table of its float64 values, so written-out forms (``x * 2``, ``1 - x``, ``x / 6``) are too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from carkp_core.errors import QuantizationError
from carkp_core.ir import operators as ir
from carkp_core.ir.arithmetic import INT_RANGE, build_table, build_table_int16
from carkp_core.ir.graph import TensorType
from carkp_core.quant import exact
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import Bounds, IrOp, Layer, Shape, origin_of
from carkp_core.quant.operators import Call, OperatorDefinition, is_number, is_tensor
from carkp_core.quant.ops.move import Move
from carkp_core.quant.step_gradient import noted

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder

Function = Callable[[Tensor], Tensor]


class Table(Layer):
    """A scalar function, entry for entry in float64."""

    kind: ClassVar[str] = "table"
    takes_bounds: ClassVar[bool] = True

    def __init__(
        self,
        function: Function,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        channels: int = 0,
        title: str = "",
    ) -> None:
        """``function`` maps a tensor; with ``channels`` it treats dimension 1 channel by channel (PReLU).

        ``name`` and ``parameters`` say what it is to a writer of ONNX, ``title`` to people.
        """
        super().__init__()
        self.function, self.channels = function, channels
        self.operator, self.parameters_of_function = name, dict(parameters or {})
        self.function_name = title or name

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return self.bounds.apply(self.function(inputs[0]))

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        x, scale = inputs[0], self.wanted_scale()
        table = self._table(x.scale, x.dtype, scale)
        if x.dtype == "int16":
            return QTensor(self._interpolated(x, table, scale), scale, "int16")
        entries = torch.as_tensor(table.astype(np.float32), device=x.values.device)
        slopes = None
        if torch.is_grad_enabled() and x.values.requires_grad:
            slopes = torch.gradient(entries, dim=-1)[0].contiguous()
        values = exact.lookup(x.values, entries, slopes)
        values = noted(values, lambda: self._steps(x, scale), *INT_RANGE["int8"])
        return QTensor(values, scale, x.dtype)

    def _steps(self, x: QTensor, scale: float) -> Tensor:
        """The function in steps of the output, not rounded."""
        return self.float_forward(x.values.detach() * x.scale) / scale

    def _interpolated(self, x: QTensor, table: Any, scale: float) -> Tensor:
        entries = torch.as_tensor(table.astype(np.int64), device=x.values.device)
        wide = x.values.detach().to(torch.int64)
        index, fraction = (wide >> 7) + 256, wide & 127
        base, following = entries[index], entries[index + 1]
        total = (base << 7) + (following - base) * fraction
        value = ((total + 64) >> 7).clamp(*INT_RANGE["int16"]).float()
        if not (torch.is_grad_enabled() and x.values.requires_grad):
            return value
        smooth = self.float_forward(x.values * x.scale) / scale
        return noted(exact.through(smooth, value, 1.0), smooth.detach, *INT_RANGE["int16"])

    def _table(self, scale_x: float, dtype_x: str, scale_y: float) -> Any:
        """The entries. The function runs in float64 on the same vector whoever asks."""

        def function(q: Any) -> Any:
            points = torch.from_numpy(np.ascontiguousarray(q))
            if not self.channels:
                return self.bounds.apply(self.function(points)).numpy()
            grid = points.reshape(1, 1, -1, 1).expand(1, self.channels, -1, 1)
            return self.bounds.apply(self.function(grid)).reshape(self.channels, -1).numpy()

        def make() -> Any:
            if dtype_x == "int16" and self.channels:
                raise QuantizationError(
                    f"{self.function_name} has a table per channel, which an int16 tensor cannot have",
                    where=str(self.source) or self.label,
                    remedy="keep its input int8",
                )
            with torch.no_grad(), np.errstate(all="ignore"):
                build = build_table_int16 if dtype_x == "int16" else build_table
                return build(lambda q: np.nan_to_num(function(q), nan=0.0, posinf=1e30, neginf=-1e30), scale_x, scale_y)

        return self.cached((scale_x, dtype_x, scale_y), make)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        x, scale = inputs[0], self.wanted_scale()
        return IrOp(ir.Table(self._table(x.scale, x.dtype, scale), self.function_name), x.dtype, scale)

    def has_onnx_form(self) -> bool:
        from carkp_core.export.onnx_functions import WRITERS

        return self.operator in WRITERS or type(self).to_onnx is not Table.to_onnx

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        from carkp_core.export.onnx_functions import WRITERS

        write = WRITERS[self.operator]
        return self.bounded(builder, write(builder, inputs[0], self.label, **self.parameters_of_function))


class Clamp(Move):
    """A clamp that could not be fused: the same steps, cut off."""

    kind: ClassVar[str] = "clamp"
    takes_bounds: ClassVar[bool] = True

    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self.bounds = bounds

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return self.bounds.apply(inputs[0])

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        x = inputs[0]
        lo, hi = self.bounds.limits(x.scale, x.dtype)
        return QTensor(x.values.clamp(lo, hi), x.scale, x.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        x = inputs[0]
        return self._ir(x, ir.Clamp(*self.bounds.limits(x.scale, x.dtype)))

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        return self.bounded(builder, inputs[0])


class PRelu(Table):
    """PReLU: one slope, or one for each channel."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(self._prelu, "prelu", channels=weight.numel() if weight.numel() > 1 else 0)
        self.origin = origin_of(weight)
        self.weight = nn.Parameter(weight.detach().clone())

    def _prelu(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.weight.to(x.dtype).reshape(-1))

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        slope = self.weight.detach().numpy().reshape(-1, *([1] * (len(shape) - 2)))
        slopes = builder.constant(slope, f"{self.label}.slope")
        return self.bounded(builder, builder.node("PRelu", [inputs[0], slopes], self.label))


def scalar(call: Call, function: Callable[..., Tensor], name: str, **parameters: Any) -> fx.Node | None:
    """Lower a call to the table of a scalar function of its ``input`` with these parameters."""
    x = call.args["input"]
    if not is_tensor(x) or not call.batched(x):
        return None
    bound = functools.partial(function, **parameters) if parameters else function
    return call.emit(Table(bound, name, parameters), x)


def simple(
    name: str, function: Callable[..., Tensor], *parameters: str, also: tuple[str, ...] = ()
) -> OperatorDefinition:
    """The definition of a scalar function whose further arguments are numbers or strings."""
    names = [p.partition("=")[0] for p in parameters]

    def lower(call: Call) -> fx.Node | None:
        extra = {key: call.args[key] for key in names}
        if any(is_tensor(value) for value in extra.values()):
            return None
        return scalar(call, function, name, **extra)

    return OperatorDefinition(name, lower, calls=(name, *also), parameters=("input", *parameters))


SCALAR_FUNCTIONS = (
    simple("sigmoid", torch.sigmoid, also=("expit",)),
    simple("tanh", torch.tanh),
    simple("silu", F.silu),
    simple("hardswish", F.hardswish),
    simple("hardsigmoid", F.hardsigmoid),
    simple("gelu", F.gelu, "approximate='none'"),
    simple("leaky_relu", F.leaky_relu, "negative_slope=0.01"),
    simple("elu", F.elu, "alpha=1.0"),
    simple("celu", F.celu, "alpha=1.0"),
    simple("selu", F.selu),
    simple("mish", F.mish),
    simple("softplus", F.softplus, "beta=1.0", "threshold=20.0"),
    simple("softsign", F.softsign),
    simple("logsigmoid", F.logsigmoid, also=("log_sigmoid",)),
    simple("tanhshrink", F.tanhshrink),
    simple("hardshrink", F.hardshrink, "lambd=0.5"),
    simple("softshrink", F.softshrink, "lambd=0.5"),
    simple("threshold", F.threshold, "threshold", "value"),
    simple("abs", torch.abs, also=("absolute",)),
    simple("neg", torch.neg, also=("negative",)),
    simple("exp", torch.exp),
    simple("log", torch.log),
    simple("sqrt", torch.sqrt),
    simple("rsqrt", torch.rsqrt),
    simple("square", torch.square),
    simple("reciprocal", torch.reciprocal),
    simple("erf", torch.erf),
    simple("sin", torch.sin),
    simple("cos", torch.cos),
    simple("floor", torch.floor),
    simple("ceil", torch.ceil),
    simple("round", torch.round),
    simple("sign", torch.sign),
    simple("log1p", torch.log1p),
    simple("expm1", torch.expm1),
)


def clamp_definition(
    name: str, bounds: Callable[[Any], Bounds], *parameters: str, also: tuple[str, ...] = ()
) -> OperatorDefinition:
    """The definition of a function that only cuts off."""

    def lower(call: Call) -> fx.Node | None:
        x = call.args["input"]
        if not is_tensor(x) or not call.batched(x):
            return None
        try:
            return call.emit(Clamp(bounds(call.args)), x)
        except TypeError:
            return None

    return OperatorDefinition(name, lower, calls=(name, *also), parameters=("input", *parameters))


def _edge(value: Any) -> float | None:
    if value is None:
        return None
    if not is_number(value):
        raise TypeError(value)
    return float(value)


def _clamp_bounds(args: Any) -> Bounds:
    return Bounds(_edge(args["min"]), _edge(args["max"]))


RELU = clamp_definition("relu", lambda args: Bounds(0.0, None))
RELU6 = clamp_definition("relu6", lambda args: Bounds(0.0, 6.0))
HARDTANH = clamp_definition(
    "hardtanh", lambda args: Bounds(_edge(args["min_val"]), _edge(args["max_val"])), "min_val=-1.0", "max_val=1.0"
)
CLAMP = clamp_definition("clamp", _clamp_bounds, "min=None", "max=None", also=("clip",))
CLAMP_MIN = clamp_definition("clamp_min", lambda args: Bounds(_edge(args["min"]), None), "min")
CLAMP_MAX = clamp_definition("clamp_max", lambda args: Bounds(None, _edge(args["max"])), "max")


def _lower_prelu(call: Call) -> fx.Node | None:
    x, weight = call.args["input"], call.args["weight"]
    if not is_tensor(x) or not isinstance(weight, Tensor) or not call.batched(x):
        return None
    return call.emit(PRelu(weight), x)


PRELU = OperatorDefinition("prelu", _lower_prelu, calls=("prelu",), parameters=("input", "weight"))


def power(x: Tensor, exponent: float) -> Tensor:
    """``x ** exponent``."""
    return torch.pow(x, exponent)


def _lower_pow(call: Call) -> fx.Node | None:
    exponent = call.args["exponent"]
    if not is_number(exponent):
        return None
    return scalar(call, power, "pow", exponent=float(exponent))


POW = OperatorDefinition("pow", _lower_pow, calls=("pow",), parameters=("input", "exponent"))
