"""Every rule: a graph that it accepts, and one that it refuses for a reason given by the rule's own name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carkp_bpu.checker.report import check
from carkp_bpu.checker.rules import RULES
from carkp_bpu.checker.rules.movement import reshape_moves_nothing, transpose_moves_nothing
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph

Make = Callable[[Any], Graph]
TERM = ops.Term(1 << 30, 40)
MAP = (1, 8, 16, 16)
CEIL = (0, 0, 1, 1)
FROM_ONE_PIXEL = ops.Resize("bilinear", (4, 4), (1, 1), (0, 0), (0, 0))


def add(terms: int = 2) -> ops.Add:
    return ops.Add((TERM,) * terms, -128, 127)


def mul() -> ops.Mul:
    return ops.Mul(1 << 30, 40, -128, 127)


def table(function: str) -> ops.Table:
    return ops.Table(np.zeros(256, dtype=np.int8), function)


def max_pool(kernel: int, stride: int = 2, **more: Any) -> ops.MaxPool:
    return ops.MaxPool((kernel, kernel), (stride, stride), **more)


#: Rule -> (march, a graph that it accepts, a graph that it refuses, what it says it saw).
CASES: dict[str, tuple[str, Make, Make, str]] = {
    "integer_form": (
        "bayes",
        lambda m: m.one(ops.Clamp(0, 127), MAP),
        lambda m: m.one(ops.Opaque("torch.nn.functional.softmax", MAP), MAP),
        "softmax has none",
    ),
    "tensor_rank": (
        "bernoulli2",
        lambda m: m.one(ops.Clamp(0, 127), MAP),
        lambda m: m.one(ops.Clamp(0, 127), (1, 2, 4, 8, 8)),
        "input 0: 5 dimensions",
    ),
    "tensor_batch": (
        "bernoulli2",
        lambda m: m.one(ops.Clamp(0, 127), (128, 8, 4, 4)),
        lambda m: m.one(ops.Clamp(0, 127), (129, 8, 4, 4)),
        "batch 129",
    ),
    "tensor_side": (
        "bayes",
        lambda m: m.one(ops.Clamp(0, 127), (1, 1, 1, 65536)),
        lambda m: m.one(ops.Clamp(0, 127), (1, 1, 1, 65537)),
        "65537",
    ),
    "tensor_bytes": (
        "bayes",
        lambda m: m.one(ops.Clamp(0, 127), (1, 1, 32768, 32768)),
        lambda m: m.one(ops.Clamp(0, 127), (1, 2, 32768, 32768)),
        "2147483648 bytes",
    ),
    "int32_only_at_tail": (
        "bayes",
        lambda m: m.conv(MAP, 8, out="int32", hi=2**31 - 1),
        lambda m: m.conv(MAP, 8, out="int32", hi=2**31 - 1, inner=True),
        "int32",
    ),
    "activation_type": (
        "bernoulli2",
        lambda m: m.one(add(), MAP, MAP),
        lambda m: m.one(add(), MAP, MAP, dtype="int16"),
        "int16",
    ),
    "conv_kernel": (
        "bernoulli2",
        lambda m: m.conv(MAP, 8, (7, 7)),
        lambda m: m.conv(MAP, 8, (8, 7)),
        "kernel 8x7",
    ),
    "conv_channels": (
        "bernoulli2",
        lambda m: m.conv((1, 4096, 2, 2), 4, (1, 1)),
        lambda m: m.conv((1, 4100, 2, 2), 4, (1, 1)),
        "4100 -> 4 channels",
    ),
    "conv_linear_output": (
        "bernoulli2",
        lambda m: m.conv((1, 4, 1, 1), 4096),
        lambda m: m.conv((1, 4, 1, 1), 4100),
        "1025 blocks",
    ),
    "conv_kernel_volume": (
        "bernoulli2",
        lambda m: m.conv((1, 1024, 8, 8), 4, (5, 5)),
        lambda m: m.conv((1, 1024, 8, 8), 4, (7, 7)),
        "7 x 7 x 1024 = 50176",
    ),
    "conv_stride": (
        "bayes",
        lambda m: m.conv((1, 4, 300, 300), 4, stride_hw=(256, 256)),
        lambda m: m.conv((1, 4, 300, 300), 4, stride_hw=(257, 1)),
        "stride 257x1",
    ),
    "conv_add_stride": (
        "bayes",
        lambda m: m.conv(MAP, 8, stride_hw=(2, 2), residual=TERM),
        lambda m: m.conv(MAP, 8, stride_hw=(3, 3), residual=TERM),
        "stride 3x3 with a fused add",
    ),
    "conv_dilation": (
        "bernoulli2",
        lambda m: m.conv(MAP, 8, (3, 3), dilation_hw=(2, 4)),
        lambda m: m.conv(MAP, 8, (3, 3), dilation_hw=(3, 3)),
        "dilation 3x3",
    ),
    "conv_dilated_stride": (
        "bayes",
        lambda m: m.conv(MAP, 8, (3, 3), dilation_hw=(2, 2)),
        lambda m: m.conv(MAP, 8, (3, 3), dilation_hw=(2, 2), stride_hw=(2, 2)),
        "stride 2x2 with dilation 2x2",
    ),
    "conv_dilated_input": (
        "bayes",
        lambda m: m.conv((1, 8, 18, 18), 8, (3, 3), dilation_hw=(3, 3)),
        lambda m: m.conv(MAP, 8, (3, 3), dilation_hw=(3, 3)),
        "map 16x16 with dilation 3x3",
    ),
    "conv_padding": (
        "bayes",
        lambda m: m.conv(MAP, 8, padding_tlbr=(256, 0, 256, 0)),
        lambda m: m.conv(MAP, 8, padding_tlbr=(257, 0, 0, 0)),
        "padding (257, 0, 0, 0)",
    ),
    "conv_relu6": (
        "bernoulli2",
        lambda m: m.conv(MAP, 8),
        lambda m: m.conv(MAP, 8, hi=60),
        "a fused clamp to 60",
    ),
    "conv_input_type": (
        "bernoulli2",
        lambda m: m.conv(MAP, 8),
        lambda m: m.conv(MAP, 8, dtype="int16", out="int8"),
        "int16 input",
    ),
    "conv_output_type": (
        "bernoulli2",
        lambda m: m.conv(MAP, 8),
        lambda m: m.conv(MAP, 8, out="int16", hi=32767),
        "int16 output",
    ),
    "conv_transpose_kernel": (
        "bayes",
        lambda m: m.deconv(MAP, 4, (4, 4), (2, 2)),
        lambda m: m.deconv(MAP, 4, (2, 2), (3, 3)),
        "kernel 2x2, stride 3x3",
    ),
    "conv_transpose_channels": (
        "bernoulli2",
        lambda m: m.deconv((1, 2048, 4, 4), 4, (2, 2), (2, 2)),
        lambda m: m.deconv((1, 2052, 4, 4), 4, (2, 2), (2, 2)),
        "2052 -> 4 channels",
    ),
    "conv_transpose_kernel_volume": (
        "bayes",
        lambda m: m.deconv((1, 320, 4, 4), 4, (4, 4), (2, 2)),
        lambda m: m.deconv((1, 400, 4, 4), 1, (14, 14), (2, 2)),
        "78400",
    ),
    "conv_transpose_stride": (
        "bernoulli2",
        lambda m: m.deconv(MAP, 4, (4, 4), (2, 4)),
        lambda m: m.deconv(MAP, 4, (4, 4), (4, 2)),
        "stride 4x2",
    ),
    "conv_transpose_padding": (
        "bernoulli2",
        lambda m: m.deconv(MAP, 4, (4, 4), (2, 2), padding_tlbr=(1, 1, 1, 1)),
        lambda m: m.deconv(MAP, 4, (4, 4), (2, 2), padding_tlbr=(2, 1, 1, 1)),
        "padding (2, 1, 1, 1), kernel 4x4, stride 2x2",
    ),
    "conv_transpose_output_padding": (
        "bernoulli2",
        lambda m: m.deconv(MAP, 4, (4, 4), (2, 2)),
        lambda m: m.deconv(MAP, 4, (4, 4), (2, 2), output_padding_hw=(1, 1)),
        "output padding 1x1",
    ),
    "conv_transpose_type": (
        "bayes",
        lambda m: m.deconv(MAP, 4, (4, 4), (2, 2)),
        lambda m: m.deconv(MAP, 4, (4, 4), (2, 2), dtype="int16"),
        "int16 input",
    ),
    "max_pool_window": (
        "bernoulli2",
        lambda m: m.one(max_pool(64), (1, 4, 80, 80)),
        lambda m: m.one(max_pool(65), (1, 4, 80, 80)),
        "window 65x65",
    ),
    "max_pool_dilation": (
        "bernoulli2",
        lambda m: m.one(max_pool(3), MAP),
        lambda m: m.one(max_pool(3, dilation_hw=(2, 2)), MAP),
        "dilation 2x2",
    ),
    "global_max_pool_size": (
        "bernoulli2",
        lambda m: m.one(ops.MaxPool((1024, 2), (1, 1)), (1, 1, 1024, 2)),
        lambda m: m.one(ops.MaxPool((1025, 2), (1, 1)), (1, 1, 1025, 2)),
        "map 1025x2",
    ),
    "avg_pool_window": (
        "bernoulli2",
        lambda m: m.avg(MAP, (7, 7), (1, 1)),
        lambda m: m.avg(MAP, (8, 7), (1, 1)),
        "window 8x7",
    ),
    "avg_pool_divisor": (
        "bayes",
        lambda m: m.avg(MAP, (3, 3), (1, 1), padding=(1, 1, 1, 1)),
        lambda m: m.avg(MAP, (3, 3), (1, 1), padding=(1, 1, 1, 1), include=False),
        "count_include_pad=False",
    ),
    "global_avg_pool_size": (
        "bernoulli2",
        lambda m: m.avg((1, 1, 64, 128), (64, 128), (1, 1)),
        lambda m: m.avg((1, 1, 65, 128), (65, 128), (1, 1)),
        "map 65x128",
    ),
    "pool_type": (
        "bernoulli2",
        lambda m: m.one(max_pool(2), MAP),
        lambda m: m.one(max_pool(2), MAP, dtype="int16"),
        "int16 input",
    ),
    "elementwise_rank": (
        "bernoulli2",
        lambda m: m.one(add(), MAP, MAP),
        lambda m: m.one(add(), (1, 8), (1, 8)),
        "2 dimensions",
    ),
    "elementwise_channels": (
        "bernoulli2",
        lambda m: m.one(mul(), (1, 2048, 1, 1), (1, 2048, 1, 1)),
        lambda m: m.one(mul(), (1, 2049, 1, 1), (1, 2049, 1, 1)),
        "2049 channels",
    ),
    "add_broadcast": (
        "bernoulli2",
        lambda m: m.one(add(), MAP, (1, 8, 1, 1)),
        lambda m: m.one(add(), MAP, (1, 1, 16, 16)),
        "(1, 1, 16, 16) against",
    ),
    "mul_broadcast": (
        "bernoulli2",
        lambda m: m.one(mul(), MAP, (1, 1, 1, 1)),
        lambda m: m.one(mul(), MAP, (1, 1, 16, 1)),
        "(1, 1, 16, 1) against",
    ),
    "constant_operands": (
        "bernoulli2",
        lambda m: m.with_constant(mul(), MAP, (1, 8, 1, 1)),
        lambda m: m.with_constant(add(), MAP, (1, 8, 1, 1)),
        "add with 1 constant operand",
    ),
    "table_function": (
        "bernoulli2",
        lambda m: m.one(table("tanh"), MAP),
        lambda m: m.one(table("elu"), MAP),
        "function elu",
    ),
    "table_size": (
        "bernoulli2",
        lambda m: m.one(table("tanh"), (1, 8, 32, 32)),
        lambda m: m.one(table("tanh"), (1, 8, 32, 33)),
        "8448 elements of tanh",
    ),
    "sigmoid_size": (
        "bernoulli2",
        lambda m: m.one(table("sigmoid"), (1, 1, 64, 32)),
        lambda m: m.one(table("sigmoid"), (1, 33, 16, 16)),
        "aligned elements",
    ),
    "concat_inputs": (
        "bayes",
        lambda m: m.one(ops.Concat((TERM, TERM), 1, -128, 127), MAP, MAP),
        lambda m: m.one(ops.Concat((TERM,), 1, -128, 127), MAP),
        "1 inputs",
    ),
    "concat_channels": (
        "bernoulli2",
        lambda m: m.one(ops.Concat((TERM, TERM), 1, -128, 127), (1, 1024, 1, 1), (1, 1024, 1, 1)),
        lambda m: m.one(ops.Concat((TERM, TERM), 1, -128, 127), (1, 1024, 1, 1), (1, 1025, 1, 1)),
        "2049 channels",
    ),
    "reshape_moves_data": (
        "bernoulli2",
        lambda m: m.one(ops.Reshape((1, 8)), (1, 8, 1, 1)),
        lambda m: m.one(ops.Reshape((1, 2048)), MAP),
        "(1, 8, 16, 16) -> (1, 2048)",
    ),
    "transpose_moves_data": (
        "bernoulli2",
        lambda m: m.one(ops.Transpose((0, 1, 3, 2)), (1, 8, 16, 1)),
        lambda m: m.one(ops.Transpose((0, 2, 3, 1)), MAP),
        "permutation (0, 2, 3, 1)",
    ),
    "resize_nearest_factor": (
        "bayes",
        lambda m: m.resize(MAP, "nearest", (2, 4)),
        lambda m: m.resize(MAP, "nearest", (3, 3)),
        "factors 3 x 3",
    ),
    "resize_bilinear_factor": (
        "bernoulli2",
        lambda m: m.resize(MAP, "bilinear", (2, 2), divide=True),
        lambda m: m.resize(MAP, "bilinear", (3, 3)),
        "factors 3 x 3",
    ),
    "resize_direction": (
        "bayes",
        lambda m: m.resize(MAP, "nearest", (1, 2)),
        lambda m: m.resize(MAP, "nearest", (2, 1)),
        "factors 2 x 1",
    ),
    "resize_range": (
        "bayes",
        lambda m: m.resize((1, 1, 2, 2), "nearest", (256, 256)),
        lambda m: m.resize((1, 1, 2, 2), "nearest", (512, 512)),
        "factors 512 x 512",
    ),
    "resize_nearest_grid": (
        "bayes",
        lambda m: m.resize(MAP, "nearest", (2, 2)),
        lambda m: m.resize(MAP, "nearest", (2, 2), offset=(1, 1)),
        "a shifted grid: position 1 along H",
    ),
    "resize_bilinear_grid": (
        "bayes",
        lambda m: m.resize(MAP, "bilinear", (2, 2)),
        lambda m: m.resize(MAP, "bilinear", (2, 2), offset=(0, 0)),
        "from (0, 0)",
    ),
}


def test_every_rule_has_a_case() -> None:
    assert [rule.name for rule in RULES] == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_accepts(name: str, make: Any) -> None:
    march, accepted, _, _ = CASES[name]
    report = check(accepted(make), march)
    assert report.ok, report.violations


@pytest.mark.parametrize("name", CASES)
def test_refuses(name: str, make: Any) -> None:
    march, _, refused, seen = CASES[name]
    report = check(refused(make), march)
    by_rule = {violation.rule: violation for violation in report.violations}
    assert name in by_rule
    assert seen in by_rule[name].seen
    assert by_rule[name].allowed
    assert by_rule[name].remedy
    assert not report.ok


@pytest.mark.parametrize(
    ("graph", "march", "name"),
    [
        (lambda m: m.conv((1, 8192, 1, 1), 4), "bayes", "conv_channels"),
        (lambda m: m.conv((1, 16384, 1, 1), 4), "bernoulli2", "conv_channels"),
        (lambda m: m.conv((1, 4, 2, 2), 16384), "bayes", "conv_channels"),
        (lambda m: m.conv(MAP, 8, hi=60), "bayes", "conv_relu6"),
        (lambda m: m.one(table("elu"), (1, 8, 64, 64)), "bayes", "table_function"),
        (lambda m: m.one(table("leaky_relu"), (1, 8, 64, 64)), "bernoulli2", "table_size"),
        (lambda m: m.one(ops.Reshape((1, 2048)), MAP), "bayes", "reshape_moves_data"),
        (lambda m: m.conv(MAP, 8, dtype="int16"), "nash-m", "conv_input_type"),
        (lambda m: m.resize(MAP, "bilinear", (3, 3)), "bayes", "resize_bilinear_factor"),
        (lambda m: m.avg(MAP, (2, 2), (2, 2), include=False), "bayes", "avg_pool_divisor"),
    ],
)
def test_accepts_on_marches_with_other_limits(graph: Make, march: str, name: str, make: Any) -> None:
    assert name not in {v.rule for v in check(graph(make), march).violations}


@pytest.mark.parametrize(
    ("graph", "march", "name"),
    [
        (lambda m: m.conv((1, 4, 2, 2), 16384, inner=True), "bayes", "conv_channels"),
        (lambda m: m.conv((1, 4, 2, 2), 16388), "bayes", "conv_channels"),
        (lambda m: m.conv((1, 4098, 2, 2), 4, groups=2), "bernoulli2", "conv_channels"),
        (lambda m: m.avg((1, 2, 7, 7), (2, 2), (2, 2), padding=CEIL, counted=(7, 7)), "bayes", "avg_pool_divisor"),
        (lambda m: m.deconv(MAP, 4, (3, 3), (3, 3), padding_tlbr=(1, 1, 1, 1)), "bayes", "conv_transpose_padding"),
        (lambda m: m.deconv(MAP, 4, (2, 2), (1, 1)), "bayes", "conv_transpose_stride"),
        (lambda m: m.resize(MAP, "nearest", (2, 2), divide=True), "bayes", "resize_nearest_factor"),
        (lambda m: m.resize(MAP, "nearest", (2, 2), size=(32, 31)), "bayes", "resize_nearest_factor"),
        (lambda m: m.one(FROM_ONE_PIXEL, (1, 2, 1, 1)), "bayes", "resize_bilinear_grid"),
        (lambda m: m.conv(MAP, 8, (3, 3), dilation_hw=(2, 2), out="int16", hi=32767), "bayes", "conv_dilated_input"),
        (lambda m: m.with_constant(add(3), MAP, MAP, MAP), "bayes", "constant_operands"),
    ],
)  # fmt: skip
def test_refuses_for_another_reason_of_the_same_rule(graph: Make, march: str, name: str, make: Any) -> None:
    assert name in {v.rule for v in check(graph(make), march).violations}


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.randoms())
def test_a_free_reshape_keeps_the_bytes_in_order(sizes: list[int], random: Any) -> None:
    before = (1, *sizes)
    after = list(sizes)
    for _ in range(random.randrange(3)):
        if len(after) > 1:
            place = random.randrange(len(after) - 1)
            after[place : place + 2] = [after[place] * after[place + 1]]
    values = np.arange(int(np.prod(sizes))).reshape(before)
    moved = stored(values.reshape(1, *after)) != stored(values)
    if reshape_moves_nothing(before, (1, *after)):
        assert not moved


@given(st.permutations(range(1, 4)), st.lists(st.integers(1, 3), min_size=3, max_size=3))
def test_a_transpose_is_free_exactly_when_the_bytes_keep_their_order(order: list[int], sizes: list[int]) -> None:
    permutation = (0, *order)
    values = np.arange(int(np.prod(sizes))).reshape(1, *sizes)
    assert transpose_moves_nothing(values.shape, permutation) == (
        stored(values.transpose(permutation)) == stored(values)
    )


def stored(values: np.ndarray) -> list[int]:
    """The elements as memory holds them, channels innermost."""
    return list(np.moveaxis(values, 1, -1).ravel())
