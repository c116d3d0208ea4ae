"""A TOSA program as plain values: what the two environments exchange, as JSON and .npy files.

Tensors have TOSA's own shapes (images are NHWC) and types; the values of inputs and constants, and the outputs that
the reference model computed, stand beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import asdict, field, frozen

Array = npt.NDArray[Any]

FILE = "program.json"


@frozen
class Tensor:
    """Shape and type, the latter in lower case: int8, int16, int32, int48, or shape."""

    shape: tuple[int, ...]
    dtype: str


@frozen
class Operator:
    """One operator: TOSA's name, its attributes as TOSA's schema names them, tensors by name."""

    name: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    output: str


@frozen(eq=False)
class Program:
    """Operators in execution order, without those that only hold constants."""

    name: str
    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    #: Inputs and constants; those of type int48 and shape as int64.
    values: Mapping[str, Array] = field(factory=dict, repr=False)
    #: What TOSA's reference model computes, once it has.
    expected: Mapping[str, Array] = field(factory=dict, repr=False)


def save(program: Program, folder: Path) -> None:
    """Write a program into a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    header = {
        "name": program.name,
        "operators": [asdict(operator) for operator in program.operators],
        "tensors": {name: asdict(tensor) for name, tensor in program.tensors.items()},
        "inputs": program.inputs,
        "outputs": program.outputs,
        "values": sorted(program.values),
        "expected": sorted(program.expected),
    }
    (folder / FILE).write_text(json.dumps(header, indent=1))
    for name, value in program.values.items():
        np.save(folder / f"{name}.npy", value)
    for name, value in program.expected.items():
        np.save(folder / f"expected-{name}.npy", value)


def load(folder: Path) -> Program:
    """Read what ``save`` wrote."""
    header = json.loads((folder / FILE).read_text())
    return Program(
        name=header["name"],
        operators=tuple(
            Operator(o["name"], o["attributes"], tuple(o["inputs"]), o["output"]) for o in header["operators"]
        ),
        tensors={name: Tensor(tuple(t["shape"]), t["dtype"]) for name, t in header["tensors"].items()},
        inputs=tuple(header["inputs"]),
        outputs=tuple(header["outputs"]),
        values={name: np.load(folder / f"{name}.npy") for name in header["values"]},
        expected={name: np.load(folder / f"expected-{name}.npy") for name in header["expected"]},
    )
