"""A network described by JSON as a .tflite of int8: run by a Python that has Vela, whose schema classes it uses.

``python vela_model.py NETWORK.npz MODEL.tflite``. Only shapes and weights count for what Vela is asked; padding is
TFLite's SAME, and one scale serves all activations.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import flatbuffers
import numpy as np
from ethosu.vela import tflite  # noqa: F401 - the package of the schema's classes
from ethosu.vela.tflite import (
    AddOptions,
    Buffer,
    Conv2DOptions,
    DepthwiseConv2DOptions,
    Model,
    Operator,
    OperatorCode,
    Pool2DOptions,
    QuantizationParameters,
    ReshapeOptions,
    SubGraph,
    Tensor,
    TransposeConvOptions,
)

#: Name -> (built-in operator, kind of its options), as in TFLite's schema.
OPERATORS = {
    "add": (0, 11),
    "avg_pool": (1, 5),
    "conv": (3, 1),
    "depthwise": (4, 2),
    "max_pool": (17, 5),
    "reshape": (22, 17),
    "deconv": (67, 49),
}
INT8, INT32 = 9, 2
SCALE = 0.05


class Writer:
    """Tables of a model under construction."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 20)
        self.buffers = [self._buffer(None)]
        self.tensors: list[int] = []
        self.operators: list[int] = []
        self.codes = list(OPERATORS)

    def _buffer(self, data: bytes | None) -> int:
        vector = self.builder.CreateByteVector(data) if data is not None else None
        Buffer.BufferStart(self.builder)
        if vector is not None:
            Buffer.BufferAddData(self.builder, vector)
        return int(Buffer.BufferEnd(self.builder))

    def _vector(self, values: Any, start: Any, prepend: str) -> int:
        start(self.builder, len(values))
        for value in reversed(list(values)):
            getattr(self.builder, prepend)(value)
        return int(self.builder.EndVector())

    def tensor(
        self,
        name: str,
        shape: list[int],
        data: np.ndarray | None = None,
        scales: list[float] | None = None,
        axis: int = 0,
    ) -> int:
        """A tensor's number; with data it is a constant, with scales it is quantized."""
        b, number = self.builder, 0
        if data is not None:
            number = len(self.buffers)
            self.buffers.append(self._buffer(data.tobytes()))
        text = b.CreateString(name)
        sizes = self._vector(shape, Tensor.TensorStartShapeVector, "PrependInt32")
        quantized = None
        if scales is not None:
            factors = self._vector(
                scales, QuantizationParameters.QuantizationParametersStartScaleVector, "PrependFloat32"
            )
            zeros = self._vector(
                [0] * len(scales), QuantizationParameters.QuantizationParametersStartZeroPointVector, "PrependInt64"
            )
            QuantizationParameters.QuantizationParametersStart(b)
            QuantizationParameters.QuantizationParametersAddScale(b, factors)
            QuantizationParameters.QuantizationParametersAddZeroPoint(b, zeros)
            QuantizationParameters.QuantizationParametersAddQuantizedDimension(b, axis)
            quantized = QuantizationParameters.QuantizationParametersEnd(b)
        Tensor.TensorStart(b)
        Tensor.TensorAddShape(b, sizes)
        Tensor.TensorAddType(b, INT32 if data is not None and data.dtype == np.int32 else INT8)
        Tensor.TensorAddBuffer(b, number)
        Tensor.TensorAddName(b, text)
        if quantized is not None:
            Tensor.TensorAddQuantization(b, quantized)
        self.tensors.append(Tensor.TensorEnd(b))
        return len(self.tensors) - 1

    def operator(self, kind: str, inputs: list[int], output: int, options: int) -> None:
        """An operator; ``options`` are written already."""
        b = self.builder
        ins = self._vector(inputs, Operator.OperatorStartInputsVector, "PrependInt32")
        outs = self._vector([output], Operator.OperatorStartOutputsVector, "PrependInt32")
        Operator.OperatorStart(b)
        Operator.OperatorAddOpcodeIndex(b, self.codes.index(kind))
        Operator.OperatorAddInputs(b, ins)
        Operator.OperatorAddOutputs(b, outs)
        Operator.OperatorAddBuiltinOptionsType(b, OPERATORS[kind][1])
        Operator.OperatorAddBuiltinOptions(b, options)
        self.operators.append(Operator.OperatorEnd(b))

    def options(self, module: Any, name: str, **fields: int) -> int:
        """A table of options."""
        getattr(module, f"{name}Start")(self.builder)
        for field, value in fields.items():
            getattr(module, f"{name}Add{field}")(self.builder, value)
        return int(getattr(module, f"{name}End")(self.builder))

    def finish(self, inputs: list[int], outputs: list[int]) -> bytes:
        """The file."""
        b = self.builder
        lists = [
            self._vector(values, start, prepend)
            for values, start, prepend in (
                (self.tensors, SubGraph.SubGraphStartTensorsVector, "PrependUOffsetTRelative"),
                (inputs, SubGraph.SubGraphStartInputsVector, "PrependInt32"),
                (outputs, SubGraph.SubGraphStartOutputsVector, "PrependInt32"),
                (self.operators, SubGraph.SubGraphStartOperatorsVector, "PrependUOffsetTRelative"),
            )
        ]
        text = b.CreateString("main")
        SubGraph.SubGraphStart(b)
        for add, value in zip(("Tensors", "Inputs", "Outputs", "Operators"), lists, strict=True):
            getattr(SubGraph, f"SubGraphAdd{add}")(b, value)
        SubGraph.SubGraphAddName(b, text)
        graph = SubGraph.SubGraphEnd(b)
        codes = []
        for kind in self.codes:
            OperatorCode.OperatorCodeStart(b)
            OperatorCode.OperatorCodeAddDeprecatedBuiltinCode(b, OPERATORS[kind][0])
            OperatorCode.OperatorCodeAddVersion(b, 1)
            OperatorCode.OperatorCodeAddBuiltinCode(b, OPERATORS[kind][0])
            codes.append(OperatorCode.OperatorCodeEnd(b))
        parts = [
            self._vector(values, start, "PrependUOffsetTRelative")
            for values, start in (
                (codes, Model.ModelStartOperatorCodesVector),
                ([graph], Model.ModelStartSubgraphsVector),
                (self.buffers, Model.ModelStartBuffersVector),
            )
        ]
        Model.ModelStart(b)
        Model.ModelAddVersion(b, 3)
        for add, value in zip(("OperatorCodes", "Subgraphs", "Buffers"), parts, strict=True):
            getattr(Model, f"ModelAdd{add}")(b, value)
        b.Finish(Model.ModelEnd(b), b"TFL3")
        return bytes(b.Output())


def write(network: dict[str, Any], arrays: Any) -> bytes:
    """A description's .tflite."""
    w = Writer()
    known = {name: w.tensor(name, shape, None, [SCALE]) for name, shape in network["inputs"].items()}
    for op in network["nodes"]:
        name, kind, stride = op["name"], op["kind"], op.get("stride", [1, 1])
        out = known[name] = w.tensor(name, op["shape"], None, [SCALE])
        inputs = [known[source] for source in op["inputs"]]
        steps = {"StrideH": stride[0], "StrideW": stride[1]}
        if kind in ("conv", "depthwise", "deconv"):
            weight, ratio = arrays[f"{name}.weight"], arrays[f"{name}.ratio"].tolist()
            axis = 3 if kind == "depthwise" else 0
            weights = w.tensor(f"{name}/w", list(weight.shape), weight, ratio, axis)
            bias = arrays[f"{name}.bias"].astype(np.int32)
            biases = w.tensor(f"{name}/b", [bias.size], bias, [SCALE * one for one in ratio])
            inputs = [inputs[0], weights, biases]
        if kind == "conv":
            fields = w.options(Conv2DOptions, "Conv2DOptions", **steps, FusedActivationFunction=op["relu"],
                               DilationWFactor=1, DilationHFactor=1)  # fmt: skip
        elif kind == "depthwise":
            fields = w.options(DepthwiseConv2DOptions, "DepthwiseConv2DOptions", **steps, DepthMultiplier=1,
                               FusedActivationFunction=op["relu"], DilationWFactor=1, DilationHFactor=1)  # fmt: skip
        elif kind == "deconv":
            size = w.tensor(f"{name}/s", [4], np.array(op["shape"], np.int32))
            inputs = [size, inputs[1], inputs[0], inputs[2]]
            fields = w.options(TransposeConvOptions, "TransposeConvOptions", **steps)
        elif kind == "add":
            fields = w.options(AddOptions, "AddOptions", FusedActivationFunction=op["relu"])
        elif kind == "reshape":
            inputs.append(w.tensor(f"{name}/s", [len(op["shape"])], np.array(op["shape"], np.int32)))
            fields = w.options(ReshapeOptions, "ReshapeOptions")
        else:
            window = {"FilterHeight": op["kernel"][0], "FilterWidth": op["kernel"][1]}
            fields = w.options(Pool2DOptions, "Pool2DOptions", Padding=op["valid"], **steps, **window)
        w.operator(kind, inputs, out, fields)
    return w.finish([known[name] for name in network["inputs"]], [known[name] for name in network["outputs"]])


if __name__ == "__main__":
    with np.load(sys.argv[1]) as stored:
        described = json.loads(bytes(stored["network"]).decode())
        data = write(described, stored)
    with open(sys.argv[2], "wb") as file:
        file.write(data)
