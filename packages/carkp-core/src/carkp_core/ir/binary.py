"""The binary form of an integer graph: a JSON header and raw arrays, parsed with bounds checks, nothing executed.

Little endian::

    offset  bytes  content
    0       4      magic "CKIR"
    4       4      format version (uint32)
    8       8      length of the header (uint64)
    16      8      length of the payload (uint64)
    24      4      CRC32 of header and payload (uint32)
    28      4      zero
    32             header: UTF-8 JSON, then zeros up to a multiple of 64
                   payload: the arrays, each at a multiple of 64 bytes from the payload's start

Equal graphs give equal bytes. Every read ends with the verifier.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from carkp_core.errors import GraphError
from carkp_core.ir.fields import make_operation, plain_fields
from carkp_core.ir.graph import Graph, GraphInput, Node, Operation, Source, TensorType, array_bytes
from carkp_core.ir.operators import OPERATIONS
from carkp_core.ir.verify import verify

MAGIC = b"CKIR"
VERSION = 1
_PREFIX = struct.Struct("<4sIQQII")
_ALIGNMENT = 64
_ARRAY_DTYPES = ("int8", "int16", "int32", "int64")


def to_bytes(graph: Graph) -> bytes:
    """The binary form of a graph."""
    payload = bytearray()
    arrays: list[dict[str, Any]] = []

    def keep(array: npt.NDArray[Any]) -> dict[str, int]:
        if str(array.dtype) not in _ARRAY_DTYPES:
            raise GraphError(f"an array of {array.dtype} cannot be stored", allowed=", ".join(_ARRAY_DTYPES))
        payload.extend(bytes(-len(payload) % _ALIGNMENT))
        arrays.append({"dtype": str(array.dtype), "shape": list(array.shape), "offset": len(payload)})
        payload.extend(array_bytes(array))
        return {"array": len(arrays) - 1}

    header = {
        "name": graph.name,
        "metadata": dict(graph.metadata),
        "inputs": [attrs.asdict(declared) for declared in graph.inputs],
        "nodes": [
            {
                "name": node.name,
                "kind": node.op.kind,
                "fields": plain_fields(node.op, keep),
                "inputs": node.inputs,
                "type": attrs.asdict(node.type),
                "source": attrs.asdict(node.source),
            }
            for node in graph.nodes
        ],
        "outputs": graph.outputs,
        "arrays": arrays,
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    text += bytes(-(len(text) + _PREFIX.size) % _ALIGNMENT)
    crc = zlib.crc32(payload, zlib.crc32(text))
    return _PREFIX.pack(MAGIC, VERSION, len(text), len(payload), crc, 0) + text + bytes(payload)


def from_bytes(data: bytes, operations: Iterable[type[Operation]] = OPERATIONS, where: str | None = None) -> Graph:
    """Parse a graph's binary form and verify it.

    Parameters
    ----------
    data:
        What ``to_bytes`` made.
    operations:
        The operator classes that may occur; plugins add theirs to core's ``OPERATIONS``.
    where:
        The file's name, for messages.

    Raises
    ------
    GraphError
        When the data are cut off, damaged, of another version, or break a rule of the IR.
    """
    header, payload = _split(data, where)
    kinds = {operation.kind: operation for operation in operations}
    try:
        arrays = [_array(entry, payload) for entry in header["arrays"]]
        graph = Graph(
            name=str(header["name"]),
            inputs=tuple(
                GraphInput(str(i["name"]), _type(i["type"]), str(i["preprocessing"])) for i in header["inputs"]
            ),
            nodes=tuple(_node(entry, kinds, arrays) for entry in header["nodes"]),
            outputs=tuple(str(name) for name in header["outputs"]),
            metadata={str(key): str(value) for key, value in header["metadata"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GraphError("the integer model's header is malformed", where=where, seen=repr(error)) from error
    verify(graph)
    return graph


def write(graph: Graph, path: Path) -> None:
    """Write a graph's binary form: to a temporary name first, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = to_bytes(graph)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # mkstemp makes a private file; a model is as readable as any other file of its owner.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path, operations: Iterable[type[Operation]] = OPERATIONS) -> Graph:
    """Read and verify a graph. Raises GraphError when the file is missing, damaged or breaks a rule of the IR."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        seen = error.strerror or str(error)
        raise GraphError("the integer model cannot be read", where=str(path), seen=seen) from error
    return from_bytes(data, operations, where=str(path))


def _split(data: bytes, where: str | None) -> tuple[dict[str, Any], memoryview]:
    if len(data) < _PREFIX.size or data[:4] != MAGIC:
        raise GraphError("this is not an integer model of carkp", where=where, seen=repr(data[:4]), allowed=repr(MAGIC))
    _, version, header_bytes, payload_bytes, crc, _ = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise GraphError(
            "the integer model has another format version",
            where=where,
            seen=str(version),
            allowed=str(VERSION),
            remedy="run `carkp train --stage int_infer` again with this version of carkp",
        )
    body = memoryview(data)[_PREFIX.size :]
    if len(body) != header_bytes + payload_bytes:
        raise GraphError(
            "the integer model is cut off or has bytes to spare",
            where=where,
            seen=f"{len(body)} bytes",
            allowed=f"{header_bytes + payload_bytes} bytes",
        )
    if zlib.crc32(body) != crc:
        raise GraphError("the integer model is damaged: its checksum differs", where=where)
    try:
        header = json.loads(bytes(body[:header_bytes]).rstrip(b"\0"))
    except ValueError as error:
        raise GraphError("the integer model's header is no JSON", where=where, seen=str(error)) from error
    if not isinstance(header, dict):
        raise GraphError("the integer model's header is malformed", where=where, seen=type(header).__name__)
    return header, body[header_bytes:]


def _array(entry: dict[str, Any], payload: memoryview) -> npt.NDArray[Any]:
    shape, dtype, offset = entry["shape"], entry["dtype"], entry["offset"]
    if dtype not in _ARRAY_DTYPES:
        raise ValueError(f"array type {dtype!r}")
    if not isinstance(offset, int) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"array place {offset!r} {shape!r}")
    little_endian = np.dtype(dtype).newbyteorder("<")
    count = 1
    for size in shape:
        count *= size
    end = offset + count * little_endian.itemsize
    if not 0 <= offset <= end <= len(payload):
        raise ValueError(f"array bytes {offset}..{end} of {len(payload)}")
    found = np.frombuffer(payload[offset:end], dtype=little_endian).reshape(shape).astype(dtype)
    found.flags.writeable = False
    return found


def _node(entry: dict[str, Any], kinds: dict[str, type[Operation]], arrays: list[npt.NDArray[Any]]) -> Node:
    kind = entry["kind"]
    if kind not in kinds:
        raise GraphError(
            f"node {entry['name']!r} has an unknown operator",
            seen=repr(kind),
            allowed=", ".join(sorted(kinds)),
            remedy="install the plugin that offers this operator",
        )
    source = entry["source"]
    return Node(
        name=str(entry["name"]),
        op=make_operation(kinds[kind], entry["fields"], arrays),
        inputs=tuple(str(name) for name in entry["inputs"]),
        type=_type(entry["type"]),
        source=Source(str(source["module_path"]), str(source["file"]), int(source["line"])),
    )


def _type(entry: dict[str, Any]) -> TensorType:
    return TensorType(tuple(int(size) for size in entry["shape"]), str(entry["dtype"]), float(entry["scale"]))
