"""Vela beside carkp: the same networks, as much on-chip memory, bytes that cross the DRAM interface for a frame.

Vela (PyPI's ``ethos-u-vela``) compiles for Arm's Ethos-U. It is installed into a folder of its own, since it needs
nothing of carkp. The machines differ, so only traffic and compile time are compared: DRAM bytes of Vela's own summary
over the least that any program must move, counted as for carkp.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from carkp_bpu.compiler.bound import lower_bound
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, Node

ACCELERATOR, SYSTEM = "ethos-u65-512", "Ethos_U65_High_End"
MODE = "Dedicated_Sram_512KB"
SRAM_BYTES = 512 << 10
#: What is said of Vela on the keypoint network where it can't be run.
PUBLISHED = "1.28 of the least on the keypoint network in 0.8 s, a published figure, not measured here"


def lines(graphs: Mapping[str, Graph], sram_bytes: int) -> Iterator[str]:
    """One line for each network, or why there are none."""
    assert sram_bytes == SRAM_BYTES, "Vela's memory mode says how much"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            python = _install(folder)
            for network, graph in graphs.items():
                yield _line(network, graph, python, folder)
        except (OSError, subprocess.SubprocessError, NotImplementedError) as error:
            yield f"Vela: {PUBLISHED}: {_reason(error)}"


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return str(said).strip().splitlines()[-1][:200]


def _install(folder: Path) -> Path:
    """A Python that has Vela."""
    _call([sys.executable, "-m", "venv", str(folder / "vela")])
    python = folder / "vela" / "bin" / "python"
    _call([str(python), "-m", "pip", "install", "-q", "ethos-u-vela"])
    return python


def _call(command: list[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return done.stdout


def _line(name: str, graph: Graph, python: Path, folder: Path) -> str:
    described, model, out = folder / "network.npz", folder / "network.tflite", folder / "out"
    network, arrays = describe(graph)
    np.savez(described, network=np.frombuffer(json.dumps(network).encode(), np.uint8), **arrays)
    _call([str(python), str(Path(__file__).with_name("vela_model.py")), str(described), str(model)])
    started = time.perf_counter()
    _call([str(python.with_name("vela")), str(model), "--accelerator-config", ACCELERATOR, "--config", "Arm/vela.ini",
           "--system-config", SYSTEM, "--memory-mode", MODE, "--optimise", "Performance",
           "--output-dir", str(out)])  # fmt: skip
    seconds = time.perf_counter() - started
    (summary,) = out.glob("network_summary*.csv")
    with summary.open(newline="") as file:
        row = next(csv.DictReader(file))
    summary.unlink()
    moved, least = int(row["dram_total_bytes"]), lower_bound(graph).total
    return (
        f"Vela, {name}, {SRAM_BYTES >> 10} KiB: {moved / least:.3f} of the least ({moved:,} DRAM bytes: "
        f"weights {int(row['dram_weight_read_bytes']):,}, maps in {int(row['dram_feature_map_read_bytes']):,}, "
        f"out {int(row['dram_feature_map_write_bytes']):,}); {seconds:.2f} s, process start included"
    )


def describe(graph: Graph) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A graph's nodes as ``vela_model`` reads them, and its constants; a fused residual is an add of its own."""
    types = graph.types()
    nodes: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        nodes += _described(node, [list(types[name].shape) for name in node.inputs], arrays)
    inputs = {i.name: _nhwc(i.type.shape) for i in graph.inputs}
    return {"inputs": inputs, "outputs": list(graph.outputs), "nodes": nodes}, arrays


def _described(node: Node, shapes: list[list[int]], arrays: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    op, shape = node.op, _nhwc(node.type.shape)
    relu = int(getattr(op, "lo", -128) == 0)
    base = {"name": node.name, "inputs": list(node.inputs), "shape": shape}
    match op:
        case ops.Conv2d():
            depthwise = op.groups > 1
            # [O, I, kh, kw]; TFLite has [O, kh, kw, I], depthwise [1, kh, kw, O].
            weight = op.weight.transpose(1, 2, 3, 0) if depthwise else op.weight.transpose(0, 2, 3, 1)
            own = f"{node.name}/sum" if op.residual else node.name
            _constants(own, op, weight, arrays)
            kind = "depthwise" if depthwise else "conv"
            yield base | {"name": own, "kind": kind, "inputs": [node.inputs[0]], "stride": list(op.stride_hw),
                          "relu": 0 if op.residual else relu}  # fmt: skip
            if op.residual:
                yield base | {"kind": "add", "inputs": [own, node.inputs[1]], "relu": relu}
        case ops.ConvTranspose2d():
            _constants(node.name, op, op.weight.transpose(1, 2, 3, 0), arrays)
            yield base | {"kind": "deconv", "stride": list(op.stride_hw)}
            # TFLite fuses nothing into it; what follows clamps.
        case ops.Add():
            yield base | {"kind": "add", "relu": relu}
        case ops.MaxPool():
            yield base | {"kind": "max_pool", "kernel": list(op.kernel_hw), "stride": list(op.stride_hw), "valid": 0}
        case ops.AvgPool():
            yield base | {"kind": "avg_pool", "kernel": list(op.kernel_hw), "stride": list(op.stride_hw), "valid": 1}
        case ops.Reshape():
            yield base | {"kind": "reshape"}
        case _:
            raise NotImplementedError(f"{op.kind} is not described to Vela")


def _constants(name: str, op: Any, weight: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    arrays[f"{name}.weight"] = np.ascontiguousarray(weight, dtype=np.int8)
    arrays[f"{name}.bias"] = op.bias
    arrays[f"{name}.ratio"] = np.asarray(op.multiplier, np.float64) / np.exp2(np.asarray(op.shift, np.float64))


def _nhwc(shape: Any) -> list[int]:
    sizes = [int(size) for size in shape]
    return [sizes[0], *sizes[2:], sizes[1]] if len(sizes) == 4 else sizes
