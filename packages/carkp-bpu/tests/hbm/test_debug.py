"""The debug table survives its bytes, and refuses what does not fit the program."""

from __future__ import annotations

import json

import pytest

from carkp_bpu.hbm.debug import (
    ANY_ROW,
    DebugTable,
    InstructionInfo,
    LayerInfo,
    Operand,
    Piece,
    TensorInfo,
    decode_debug,
    encode_debug,
)
from carkp_core.errors import BackendError

TABLE = DebugTable(
    layers=(LayerInfo("conv", "conv2d", "net.conv (net.py:3)"),),
    tensors=(TensorInfo("img", "int8", (1, 3, 4, 4)), TensorInfo("conv:parameters[0:4]", "int8")),
    instructions=(InstructionInfo(0, (Operand(0, 2), Operand(1, ANY_ROW))),),
    pieces=(Piece(0, False, 0, 64, (0, 4), (0, 4), (0, 3), 4, 16, 4, 0, 0),),
)


def test_round_trip():
    assert decode_debug(encode_debug(TABLE), 1) == TABLE


def test_a_place_names_layer_and_module_path():
    assert TABLE.place(0) == "instruction 0, layer conv (conv2d) of net.conv (net.py:3)"
    assert DebugTable().place(4) == "instruction 4"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("instructions", [[1, 0, 2]]),
        ("instructions", [[0, 5, 0]]),
        ("instructions", [[0, 1]]),
        ("instructions", [[0], [0]]),
        ("pieces", [[0, 0, 9, 64, 0, 4, 0, 4, 0, 3, 4, 16, 4, 0, 0]]),
        ("pieces", [[0, 0, 0, 64, 4, 4, 0, 4, 0, 3, 4, 16, 4, 0, 0]]),
        ("tensors", [[7, "int8"]]),
        ("layers", [["a", "b"]]),
    ],
)
def test_a_table_that_does_not_fit_is_refused(key, value):
    raw = json.loads(encode_debug(TABLE)) | {key: value}
    with pytest.raises(BackendError, match="debug table cannot be read"):
        decode_debug(json.dumps(raw).encode(), 1)
