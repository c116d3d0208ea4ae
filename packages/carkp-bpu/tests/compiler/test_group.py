"""Nodes become layers; reshapes that move nothing become names."""

from __future__ import annotations

import numpy as np
import pytest

from carkp_bpu.compiler.group import dense_bytes, group
from carkp_bpu.compiler.lowering.movement import Movement
from carkp_bpu.compiler.samples import NetworkBuilder
from carkp_core.errors import BackendError
from carkp_core.ir import operators as ops


def kinds(net: NetworkBuilder) -> list[str]:
    return [layer.info.op for layer in group(net.graph()).layers]


@pytest.mark.parametrize("shape", [(1, 6, 20), (1, 6, 2, 10), (1, 6, 2, 2, 5), (1, 6, 20, 1)])
def test_a_reshape_that_keeps_channels_is_another_name(shape):
    net = NetworkBuilder((1, 6, 4, 5))
    conv = net.conv(6)
    flat = net.add(ops.Reshape(shape))
    model = group(net.graph())
    assert [layer.info.op for layer in model.layers] == ["conv2d"]
    assert model.root(flat) == conv


@pytest.mark.parametrize(
    ("shape", "target", "moves"),
    [
        ((1, 6, 4, 5), (1, 120), 1),
        ((1, 120), (1, 6, 4, 5), 1),
        ((1, 6, 4, 5), (1, 4, 6, 5), 2),
        ((1, 6), (1, 6, 1, 1), 0),
    ],
)
def test_other_reshapes_are_transposes_around_another_name(shape, target, moves):
    net = NetworkBuilder(shape)
    net.add(ops.Reshape(target))
    model = group(net.graph())
    assert len(model.layers) == moves
    assert all(isinstance(layer.lowering, Movement) for layer in model.layers)


def test_constants_are_stored_channels_innermost():
    value = np.arange(24, dtype=np.int8).reshape(1, 2, 3, 4)
    assert dense_bytes(value) == value.transpose(0, 2, 3, 1).tobytes()
    assert dense_bytes(np.array([-2, 258], dtype=np.int16).reshape(1, 2)) == b"\xfe\xff\x02\x01"


def test_broadcasts_inside_folded_rows_are_expanded_first():
    net = NetworkBuilder((1, 4, 3, 4, 5))
    fixed = net.constant((1, 4, 1, 4, 1))
    net.add_tensors("img", fixed)
    assert kinds(net) == ["add", "add"]


def test_what_has_no_instruction_is_refused_with_its_place():
    net = NetworkBuilder((1, 4, 4, 4))
    net.add(ops.Opaque("torch.fft", (1, 4, 4, 4)))
    with pytest.raises(BackendError, match="no instruction") as caught:
        group(net.graph())
    assert "net.opaque0 (net.py:1)" in str(caught.value.where)
    assert "opaque" in str(caught.value.seen)


def test_sums_that_could_leave_int32_are_refused():
    net = NetworkBuilder((1, 4096, 1, 1), dtype="int16")
    op = ops.Conv2d(weight=np.full((1, 4096, 1, 1), 127), bias=[0], multiplier=[1 << 30], shift=[40], lo=-128, hi=127)
    net.add(op)
    with pytest.raises(BackendError, match="output channel 0 can leave int32") as caught:
        group(net.graph())
    assert "net.conv2d0" in str(caught.value.where)


@pytest.mark.parametrize(("axis", "moves"), [(1, 0), (2, 0), (3, 3), (4, 0)])
def test_a_concat_inside_the_rows_is_brought_to_their_front_and_back(axis, moves):
    net = NetworkBuilder((1, 3, 4, 5, 6))
    net.concat(axis, "img", "img")
    model = group(net.graph())
    assert sum(isinstance(layer.lowering, Movement) for layer in model.layers) == moves
    assert model.maps[net.last].shape == net.shape()
