"""`check_backend`: does an NPU plugin keep the promises that core's commands rely on?

Legend: ``H W`` the image.
"""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from carkp_core.backend import CheckReport, CompileOptions, NpuBackend, Program
from carkp_core.errors import BackendError
from carkp_core.ir import operators as ir
from carkp_core.ir import reference
from carkp_core.ir.graph import Graph
from carkp_core.plugins import PluginManager
from carkp_core.testing.findings import Findings
from carkp_core.testing.integers import check_on_march, hold, plain_context, random_inputs

_PROMISE = "core's commands use a backend through this interface only (carkp_core.backend.NpuBackend)"


def check_backend(march: str, plugins: PluginManager | None = None, network: nn.Module | None = None) -> None:
    """Hold a march's backend to `carkp_core.backend.NpuBackend`, with a network that it must run.

    Every method is there; the checker judges every node and refuses what has no integer form; the simulator and the
    program give the reference executor's numbers, taps included; equal input gives equal bytes; a program knows what it
    was compiled from; damaged files are refused; the camera's image has the form that networks take.

    Parameters
    ----------
    march:
        One of the backend's.
    plugins:
        By default the installed ones.
    network:
        A network on images [N, 3, 16, 16]; by default two convolutions, a residual and a pooling.

    Raises
    ------
    CheckFailed
        With every finding.
    """
    found = Findings(f"backend of march {march!r}")
    context = plain_context(march, plugins)
    with found.step("loading", _PROMISE, "correct `load` of the Backend record"):
        _check_methods(found, context.backend())
    found.raise_if_any()
    backend = context.backend()
    graph = _graph(network or Probe(), context)
    with found.step("check", "users see its verdicts before they train", "see the message"):
        _check_report(found, backend.check(graph, march), graph, march)
        _check_refusal(found, backend, _graph(Unknown(), context), march)
    with found.step("simulate and compile", "int_infer and the validation run on them", "see the message"):
        check_on_march(found, graph, backend, march)
    if backend.check(graph, march).ok:
        with found.step("programs", "a program is kept, copied and validated as a file", "see the message"):
            _check_program(found, backend, graph, march)
    with found.step("camera_input", "the validation feeds what the camera would deliver", "see NpuBackend"):
        _check_camera(found, backend, march)
    found.raise_if_any()


class Probe(nn.Module):
    """A stem, a residual, a pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, img: Tensor) -> Tensor:
        x = torch.relu(self.stem(img))
        return nn.functional.max_pool2d(x + self.body(x), 2)


class Unknown(nn.Module):
    """Ends in an operator without integer form."""

    def forward(self, img: Tensor) -> Tensor:
        return torch.cumsum(torch.relu(img), dim=-1)


def _graph(network: nn.Module, context: Any) -> Graph:
    from carkp_core.quant.fast import fast_graph

    torch.manual_seed(0)
    return fast_graph(network.eval(), {"img": torch.zeros(1, 3, 16, 16)}, context, "check")


def _check_methods(found: Findings, backend: NpuBackend) -> None:
    for name, wanted in inspect.getmembers(NpuBackend, inspect.isfunction):
        if name.startswith("_"):
            continue
        method = getattr(backend, name, None)
        if not found.expect(callable(method), f"there is no method {name!r}", _PROMISE, f"implement {name}"):
            continue
        assert callable(method)
        arguments = [p for p in inspect.signature(wanted).parameters if p != "self"]
        least = [a for a in arguments if a not in ("threads", "taps")]
        try:
            inspect.signature(method).bind(*([None] * len(arguments)))
            inspect.signature(method).bind(*([None] * len(least)))
        except TypeError as error:
            found.add(
                f"{name} cannot be called with ({', '.join(arguments)}): {error}", _PROMISE,
                "take the protocol's parameters, with its defaults",
            )  # fmt: skip


def _check_report(found: Findings, report: CheckReport, graph: Graph, march: str) -> None:
    judged, nodes = [verdict.node for verdict in report.nodes], [node.name for node in graph.nodes]
    found.expect(
        judged == nodes, f"the check judges {judged}; the graph has {nodes}",
        "the report shows one verdict for each node", "return one NodeVerdict a node, in execution order",
    )  # fmt: skip
    found.expect(
        report.march == march, f"the report is of march {report.march!r}",
        "reports are kept and compared", "return the march that was asked for",
    )  # fmt: skip
    _check_violations(found, report)


def _check_violations(found: Findings, report: CheckReport) -> None:
    accused = {violation.node for violation in report.violations}
    refused = {verdict.node for verdict in report.nodes if verdict.verdict != "NPU"}
    found.expect(
        refused <= accused, f"{', '.join(sorted(refused - accused))} is refused without a violation",
        "users must learn what to change", "name the rule, what was seen and what is allowed",
    )  # fmt: skip
    blank = [v.rule for v in report.violations if not (v.rule and v.seen and v.allowed and v.remedy)]
    found.expect(
        not blank, f"violations of {', '.join(blank)} lack seen, allowed or remedy",
        "users must learn what to change", "fill in all of a Violation's fields",
    )  # fmt: skip


def _check_refusal(found: Findings, backend: NpuBackend, graph: Graph, march: str) -> None:
    report = backend.check(graph, march)
    opaque = [node.name for node in graph.nodes if isinstance(node.op, ir.Opaque)]
    accepted = [v.node for v in report.nodes if v.node in opaque and v.verdict == "NPU"]
    found.expect(
        not report.ok and not accepted, "an operator without integer form is accepted",
        "such nodes (`ir.Opaque`) stand for operators that only torch can compute",
        "give them the verdict CPU or rejected",
    )  # fmt: skip
    _check_violations(found, report)
    with tempfile.TemporaryDirectory() as folder:
        options = CompileOptions(march, "check", Path(folder) / "refused.hbm", Path(folder))
        result = backend.compile(graph, options)
        found.expect(
            result.hbm is None and not options.hbm.exists() and not result.check.ok,
            "a refused graph is compiled", "a program must hold the whole network", "check first; write nothing",
        )  # fmt: skip


def _check_program(found: Findings, backend: NpuBackend, graph: Graph, march: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for name in ("a", "b"):
            options = CompileOptions(march, "check", Path(folder) / name / "model.hbm", Path(folder) / name)
            results.append(backend.compile(graph, options))
        same = results[0].sha256 == results[1].sha256
        found.expect(
            same, "compiling twice gives other bytes", "a program is identified by its hash",
            "keep time, paths and the order of sets out of it",
        )  # fmt: skip
        path = results[0].hbm
        assert path is not None
        program = backend.load_program(path)
        _check_identity(found, backend, program, graph, options)
        inputs, taps = random_inputs(graph), [graph.nodes[0].name]
        expected = reference.execute(graph, inputs, taps)
        hold(found, "the program, tapped at its first node,", expected, backend.run_program(program, inputs, taps))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        try:
            backend.load_program(path)
            found.add("half of a program is loaded", "files get cut off", "check the length, or a checksum")
        except BackendError:
            pass
    performance = backend.estimate(graph, options)
    found.expect(
        performance.latency_ms > 0 and performance.fps > 0,
        f"the estimate is {performance.latency_ms} ms and {performance.fps} frames/s",
        "it is what compile-perf prints", "return positive numbers",
    )  # fmt: skip


def _check_identity(
    found: Findings, backend: NpuBackend, program: Program, graph: Graph, options: CompileOptions
) -> None:
    types = graph.types()
    wanted = {
        "march": options.march,
        "graph_digest": graph.digest(),
        "options_digest": backend.options_digest(options),
        "inputs": {i.name: (i.type.shape, i.type.dtype, float(i.type.scale)) for i in graph.inputs},
        "outputs": {n: (types[n].shape, types[n].dtype, float(types[n].scale)) for n in graph.outputs},
    }
    for name, value in wanted.items():
        told = getattr(program, name, None)
        told = dict(told) if isinstance(value, dict) and told is not None else told
        found.expect(
            told == value, f"a loaded program says {name} = {told!r}, not {value!r}",
            "the validation compiles again when a program was made of something else", f"store {name} in the file",
        )  # fmt: skip


def _check_camera(found: Findings, backend: NpuBackend, march: str) -> None:
    grey = backend.camera_input(np.full((6, 8, 3), 200, np.uint8), march)
    form = (grey.dtype, grey.shape)
    if found.expect(
        form == (np.dtype(np.int8), (3, 6, 8)), f"camera_input gives {form[0]} {form[1]} for an image of 6 x 8",
        "the network's input is int8 [3, H, W]", "return YUV 4:4:4 minus 128",
    ):  # fmt: skip
        far = np.abs(grey.astype(int) - np.array([72, 0, 0]).reshape(3, 1, 1)).max()
        found.expect(
            int(far) <= 1, f"camera_input turns grey 200 into {grey[:, 0, 0].tolist()}",
            "networks are trained on full-range BT.601 YUV minus 128: (72, 0, 0)", "check range and channel order",
        )  # fmt: skip
