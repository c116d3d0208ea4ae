"""A small writer of ONNX graphs: nodes, constants and names. Layers write themselves with it (``Layer.to_onnx``)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

PRODUCER = "carkp"


class OnnxBuilder:
    """Collects the nodes and constants of one graph."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._names: set[str] = set()
        self._shapes: dict[str, Any] = {}

    def node(self, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node and return the name of its output; attributes that are None are left out."""
        output = self.unique(name)
        given = {key: value for key, value in attributes.items() if value is not None}
        self._nodes.append(helper.make_node(op_type, list(inputs), [output], name=output, **given))
        return output

    def constant(self, value: npt.ArrayLike, name: str, dtype: str = "float32") -> str:
        """Add an initializer and return its name."""
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype)).reshape(np.shape(value))
        unique = self.unique(name)
        self._constants[unique] = numpy_helper.from_array(array, unique)
        return unique

    def unique(self, name: str) -> str:
        """The name, with a number when it is taken."""
        candidate, count = name, 1
        while candidate in self._names:
            count += 1
            candidate = f"{name}_{count}"
        self._names.add(candidate)
        return candidate

    def rename_output(self, old: str, new: str) -> str:
        """Give a graph output its public name by an Identity, which every runtime drops."""
        if old == new:
            return new
        return self.node("Identity", [old], new)

    def model(
        self,
        name: str,
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Mapping[str, tuple[int, ...]],
        metadata: Mapping[str, str] | None = None,
    ) -> onnx.ModelProto:
        """The checked model; shapes are static, NCHW, float32 at both ends."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in outputs.items()],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name=PRODUCER)
        # The oldest file format that has the operator set, so that older runtimes read it.
        model.ir_version = helper.find_min_ir_version_for(opsets)
        helper.set_model_props(model, dict(metadata or {}))
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model: to a temporary name first, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(model.SerializeToString(deterministic=True))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
