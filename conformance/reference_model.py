"""TOSA's reference model: test files read as programs, and programs run. In the environment of ``tosa-tools``.

TOSA's files are flatbuffers; ``flatc``, which comes with the tools, turns them into JSON and back.
"""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve

from conformance.program import Array, Operator, Program, Tensor

#: Bytes of one element in a file, and the type in which its values are exchanged.
_STORED = {
    "int8": (1, "int8"),
    "int16": (2, "int16"),
    "int32": (4, "int32"),
    "int48": (6, "int64"),
    "shape": (8, "int64"),
}
_CONSTANTS = ("CONST", "CONST_SHAPE")


def read_test(folder: Path) -> Program:
    """A generated test as a program, with the outputs that the reference model computes for it."""
    description = json.loads((folder / "desc.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        _call("flatc", "--json", "--strict-json", "--defaults-json", "-o", scratch, _tool("tosa.fbs"), "--",
              folder / description["tosa_file"])  # fmt: skip
        block = json.loads((Path(scratch) / "test.json").read_text())["regions"][0]["blocks"][0]
        _call("tosa_reference_model", f"--test_desc={folder / 'desc.json'}", f"--output_dir={scratch}")
        outputs = zip(description["ofm_name"], description["ofm_file"], strict=True)
        expected = {name: np.load(Path(scratch) / file) for name, file in outputs}
    inputs = zip(description["ifm_name"], description["ifm_file"], strict=True)
    values = {name: np.load(folder / file) for name, file in inputs}
    return evolve(_program(folder.name, block, values), expected=expected)


def run(program: Program) -> Program:
    """The program with the outputs that the reference model computes for it."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "test.json").write_text(json.dumps(_file(program)))
        _call("flatc", "--binary", "-o", scratch, _tool("tosa.fbs"), place / "test.json")
        for name in program.inputs:
            np.save(place / f"{name}.npy", program.values[name])
        description = {
            "tosa_file": "test.tosa",
            "ifm_name": program.inputs,
            "ifm_file": [f"{name}.npy" for name in program.inputs],
            "ofm_name": program.outputs,
            "ofm_file": [f"expected-{name}.npy" for name in program.outputs],
            "expected_failure": False,
        }
        (place / "desc.json").write_text(json.dumps(description))
        _call("tosa_reference_model", f"--test_desc={place / 'desc.json'}")
        return evolve(program, expected={name: np.load(place / f"expected-{name}.npy") for name in program.outputs})


def _program(name: str, block: Mapping[str, Any], values: dict[str, Array]) -> Program:
    """A program from a block of a file's JSON, constants added to ``values``."""
    tensors = {t["name"]: Tensor(tuple(t["shape"]), t["type"].lower()) for t in block["tensors"]}
    tensors |= {s["name"]: Tensor((s["rank"],), "shape") for s in block["shapes"]}
    for stored in (*block["tensors"], *block["shapes"]):
        if stored["data"]:
            values[stored["name"]] = _decoded(stored["data"], tensors[stored["name"]])
    operators = [
        Operator(o["op"], o.get("attribute", {}), tuple(o["inputs"]), o["outputs"][0])
        for o in block["operators"]
        if o["op"] not in _CONSTANTS
    ]
    # A shape of rank 0 has no bytes to be found by.
    empty = {n: np.zeros(t.shape, np.int64) for n, t in tensors.items() if t == Tensor((0,), "shape")}
    return Program(name, tuple(operators), tensors, tuple(block["inputs"]), tuple(block["outputs"]), empty | values)


def _decoded(data: list[int], tensor: Tensor) -> Array:
    """Little-endian bytes as values."""
    size, dtype = _STORED[tensor.dtype]
    room = np.dtype(dtype).itemsize
    count = int(np.prod(tensor.shape, dtype=np.int64))
    stored = np.array(data[: count * size], dtype=np.uint8).reshape(count, size)
    # Integers of 48 bits are widened with their sign.
    sign = np.where(stored[:, -1:] >= 128, 255, 0).astype(np.uint8)
    wide = np.concatenate([stored, np.repeat(sign, room - size, axis=1)], axis=1)
    return wide.reshape(-1).view(np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(tensor.shape)


def _file(program: Program) -> dict[str, Any]:
    """A program as JSON of TOSA's schema."""
    constants = [name for name in program.values if name not in program.inputs]
    operators = [
        _operator("CONST_SHAPE" if program.tensors[name].dtype == "shape" else "CONST", {}, (), name)
        for name in constants
    ]
    operators += [_operator(o.name, o.attributes, o.inputs, o.output) for o in program.operators]
    tensors, shapes = [], []
    for name, tensor in program.tensors.items():
        size, dtype = _STORED[tensor.dtype]
        stored: list[int] = []
        if name in constants:
            wide = np.ascontiguousarray(program.values[name], dtype=np.dtype(dtype).newbyteorder("<"))
            stored = wide.reshape(-1, 1).view(np.uint8)[:, :size].reshape(-1).tolist()
            stored += [0] * (-len(stored) % 8)
        if tensor.dtype == "shape":
            shapes.append({"name": name, "rank": tensor.shape[0], "data": stored})
        else:
            tensors.append({"name": name, "shape": tensor.shape, "type": tensor.dtype.upper(), "data": stored})
    block = {
        "name": "main",
        "operators": operators,
        "tensors": tensors,
        "inputs": program.inputs,
        "outputs": program.outputs,
        "shapes": shapes,
    }
    return {
        "version": {"_major": 1, "_minor": 1, "_patch": 0, "_draft": True},
        "regions": [{"name": "main", "blocks": [block]}],
    }


def _operator(name: str, attributes: Mapping[str, Any], inputs: tuple[str, ...], output: str) -> dict[str, Any]:
    kind = "".join(part.capitalize() for part in name.split("_")) + "Attribute"
    return {"op": name, "attribute_type": kind, "attribute": attributes, "inputs": inputs, "outputs": [output]}


@functools.cache
def _tool(name: str) -> Path:
    return Path(str(metadata.distribution("tosa-tools").locate_file(f"bin/{name}")))


def _call(tool: str, *arguments: object) -> None:
    done = subprocess.run([_tool(tool), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{tool} {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
