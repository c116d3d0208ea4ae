from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from carkp_core.ir import operators as ir
from carkp_core.ir.graph import Operation
from carkp_core.operator import Operator
from carkp_core.plugins import module_plugin, plugin_manager
from carkp_core.quant.layer import IrOp
from carkp_core.quant.operators import Call, OperatorDefinition
from carkp_core.quant.ops.move import Move
from carkp_core.testing import CheckFailed, check_operator

torch.set_num_threads(1)


@frozen
class Flip(Operation):
    """Columns in reverse order."""

    kind = "acme_flip"

    def infer_shape(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        return shapes[0]

    def execute(self, inputs: tuple[Any, ...]) -> Any:
        return inputs[0][..., ::-1]

    def to_onnx(self, builder: Any, inputs: Any, name: str) -> str:
        return flipped(builder, inputs[0], name)


@frozen
class Skewed(Flip):
    """Not what the layer computes."""

    def execute(self, inputs: tuple[Any, ...]) -> Any:
        return np.roll(inputs[0], 1, axis=-1)


def flipped(builder: Any, x: str, name: str) -> str:
    edges = [builder.constant(np.array(v), f"{name}.{n}", "int64") for n, v in
             (("starts", [-1]), ("ends", [-1000]), ("axes", [3]), ("steps", [-1]))]  # fmt: skip
    return builder.node("Slice", [x, *edges], name)


class FlipLayer(Move):
    operation: type[Operation] = Flip

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].flip(-1)

    def to_ir(self, *inputs: Any) -> IrOp:
        return IrOp(self.operation(), inputs[0].dtype, inputs[0].scale)

    def to_onnx(self, builder: Any, inputs: Any, shapes: Any, shape: Any) -> str:
        return flipped(builder, inputs[0], self.label)


class SkewedLayer(FlipLayer):
    operation = Skewed


def definition(layer: type[FlipLayer], operation: type[Operation]) -> OperatorDefinition:
    def lower(call: Call) -> Any:
        return call.emit(layer(), call.args["input"])

    return OperatorDefinition("flip", lower, calls=("flip",), parameters=("input", "dims"), operations=(operation,))


FLIP = definition(FlipLayer, Flip)
SKEWED = definition(SkewedLayer, Skewed)
NEVER = OperatorDefinition("flip", lambda call: None, calls=("flip",), parameters=("input", "dims"), operations=(Flip,))
IDLE = OperatorDefinition("flip", lambda call: None, calls=("nothing",), parameters=("input",), operations=(Flip,))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flip(-1)


def plugins(load: str) -> Any:
    manager = plugin_manager(load_installed=False)
    manager.add("acme", "acme 1.0", lambda: module_plugin(carkp_operators=lambda: [Operator("flip", load)]))
    return manager


def check(load: str, network: nn.Module | None = None) -> Any:
    return check_operator("flip", network or Net(), {"x": torch.zeros(1, 3, 8, 8)}, plugins=plugins(load))


def test_a_sound_operator():
    graph = check(f"{__name__}:FLIP")
    assert [node.op.kind for node in graph.nodes] == ["conv2d", "acme_flip"]


@pytest.mark.parametrize(
    ("load", "what"),
    [
        (f"{__name__}:SKEWED", "layer and integer operator differ in"),
        (f"{__name__}:NEVER", "is recognised by no operator"),
        ("nowhere:FLIP", "importing nowhere:FLIP raises ModuleNotFoundError"),
    ],
)
def test_each_defect_is_found(load, what):
    with pytest.raises(CheckFailed, match=what):
        check(load)


def test_a_network_without_the_operator_is_told():
    with pytest.raises(CheckFailed, match="none of acme_flip"):
        check(f"{__name__}:IDLE", nn.Conv2d(3, 4, 1))


def test_an_operator_that_nobody_offers():
    with pytest.raises(CheckFailed, match="0 plugins offer an operator 'flip'"):
        check_operator("flip", Net(), {"x": torch.zeros(1, 3, 8, 8)}, plugins=plugin_manager(load_installed=False))


def test_cores_operators_keep_their_names():
    assert "acme_flip" not in {operation.kind for operation in ir.OPERATIONS}
