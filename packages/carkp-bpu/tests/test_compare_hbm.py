"""``carkp compare`` with a compiled program: its tiles are put together again, and a damaged one is found out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from click.testing import CliRunner, Result

from carkp_bpu.backend import BpuBackend
from carkp_bpu.compiler.samples import NetworkBuilder
from carkp_bpu.hbm.program import load, write
from carkp_core.commands.compare import compare
from carkp_core.compare.comparison import compare_session
from carkp_core.compare.integers import IntegerFindings
from carkp_core.ir import binary
from carkp_core.ir.graph import Graph
from carkp_core.plugins import plugin_manager
from carkp_core.session import Session, open_session

TASK = """
import numpy as np, torch

class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 5
    def __getitem__(self, index):
        pixels = np.random.default_rng(index).integers(-128, 128, (3, 64, 64))
        return {"img": torch.from_numpy(pixels).float() / 128, "img_name": f"noise{index}.png"}

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = torch.nn.Identity()
    def forward(self, data):
        return self.network(data["img"])
"""

CONFIG = """
import torch
import {task} as task

task_name, march, ckpt_dir = "noise", "bayes", {folder!r}
int_infer_predictor = dict(
    type="Predictor", model=dict(type=task.Model),
    data_loader=dict(type=torch.utils.data.DataLoader, dataset=dict(type=task.Noise)),
)
compile_cfg = dict(out_dir=ckpt_dir, sram_bytes=24576)
"""


def network() -> Graph:
    """Larger than the on-chip memory that the config grants, so that its tensors lie in tiles."""
    net = NetworkBuilder((1, 3, 64, 64))
    stem = net.conv(24, 3, 2)
    net.conv(24, 3, groups=24)
    net.conv(24, residual=stem, lo=-128)
    pooled = net.avg_pool((2, 2), (2, 2))
    net.deconv(8)
    net.conv(8, 3, lo=-128)
    return net.graph(net.last, pooled, name="noise")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config, its task and its integer model."""
    task = f"task_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{task}.py").write_text(TASK)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "config.py").write_text(CONFIG.format(task=task, folder=str(tmp_path)))
    put(tmp_path, network())
    return tmp_path


def put(folder: Path, graph: Graph) -> None:
    binary.write(attrs.evolve(graph, metadata={"march": "bayes"}), folder / "int_infer-checkpoint-best.ir")


def opened(folder: Path) -> Session:
    return open_session(str(folder / "config.py"))


def run(folder: Path, *arguments: str) -> Result:
    config = ("--config", str(folder / "config.py"))
    return CliRunner().invoke(compare, ["int_infer", "hbm", *config, *arguments], obj=plugin_manager())


def test_every_tensor_is_gathered_from_its_tiles(folder: Path) -> None:
    result = run(folder, "--json", str(folder / "out.json"))
    assert result.exit_code == 0, result.output
    assert "there is no program yet" in result.stderr
    payload = json.loads((folder / "out.json").read_text())
    assert payload["differing_elements"] == 0
    assert payload["images"] == 5
    assert [layer["name"] for layer in payload["layers"]] == ["img", *(node.name for node in network().nodes)]
    assert (payload["only_a"], payload["only_b"], payload["notes"]) == ([], [], [])
    program = load(folder / "model.hbm")
    layers = [program.debug.layers[info.layer].name for info in program.debug.instructions]
    convolved = [
        name for name, one in zip(layers, program.instructions, strict=True) if "conv" in type(one).__name__.lower()
    ]
    assert max(convolved.count(name) for name in set(convolved)) > 2, "no layer has several tiles"
    assert {piece.in_ddr for piece in program.debug.pieces} == {True, False}
    assert "compiling" not in run(folder, "--num-samples", "1").stderr


def change(graph: Graph, name: str, update: Callable[[Any], dict[str, Any]]) -> Graph:
    nodes = tuple(
        attrs.evolve(node, op=attrs.evolve(node.op, **update(node.op))) if node.name == name else node  # type: ignore[misc]
        for node in graph.nodes
    )
    return attrs.evolve(graph, nodes=nodes)


def weight(op: Any) -> dict[str, Any]:
    changed = op.weight.copy()
    changed[5, 0, 1, 1] ^= 0x55
    return {"weight": changed}


def multiplier(op: Any) -> dict[str, Any]:
    changed = op.multiplier.copy()
    changed[3] = changed[3] // 10 * 9 if changed[3] > 1.2 * 2**30 else changed[3] // 10 * 11
    return {"multiplier": changed}


def pad(op: Any) -> dict[str, Any]:
    top, left, bottom, right = op.padding_tlbr
    return {"padding_tlbr": (top, left - 1, bottom, right + 1)}


@pytest.mark.parametrize(
    ("update", "layer", "channel"), [(weight, "conv2d1", 5), (multiplier, "conv2d5", 3), (pad, "conv2d5", None)]
)
def test_a_damaged_program_is_found_out(
    folder: Path, update: Callable[[Any], dict[str, Any]], layer: str, channel: int | None
) -> None:
    """The program holds another number, but says that it was compiled from the integer model."""
    graph, session, backend = network(), opened(folder), BpuBackend()
    broken = change(graph, layer, update)
    options = session.compile_options()
    assert backend.compile(broken, options).hbm is not None
    program = load(options.hbm)
    write(
        attrs.evolve(program, description=attrs.evolve(program.description, graph_digest=graph.digest())), options.hbm
    )

    found = compare_session(session, ("int_infer", "hbm"), num_samples=2)
    assert not found.ok
    assert found.compiled_because == ""
    assert isinstance(found.findings, IntegerFindings)
    first = found.findings.first
    assert first is not None
    assert (first.layer, first.image, first.source) == (layer, "noise0.png", str(graph.node(layer).source))
    assert channel in (None, first.index[0])
    assert (first.parameters, first.hidden_inputs) == ((), ())
    assert first.a.terms == first.b.terms
    assert first.a.value == first.a.reference == first.b.reference != first.b.value
    assert "hbm does not give what its own numbers say" in first.explanation("int_infer", "hbm")

    pixels = np.stack([np.random.default_rng(i).integers(-128, 128, (3, 64, 64)) for i in (0, 1)]).astype(np.int8)
    names = [node.name for node in graph.nodes]
    right, wrong = (backend.simulate(g, 1)({"img": pixels}, names) for g in (graph, broken))
    counts = {layer.name: layer.differing for layer in found.findings.layers if layer.name != "img"}
    assert counts == {name: int((right[name] != wrong[name]).sum()) for name in names}


def test_a_stale_program_is_compiled_anew_and_said(folder: Path) -> None:
    assert run(folder, "--num-samples", "1").exit_code == 0
    put(folder, change(network(), "conv2d5", weight))
    result = run(folder, "--num-samples", "1")
    assert result.exit_code == 0, result.output
    assert "compiled from another integer model" in result.stderr
