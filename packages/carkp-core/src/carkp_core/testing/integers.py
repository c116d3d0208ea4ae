"""Steps that several checks share: a context without a config, an integer model, and whether executors agree."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carkp_core.backend import CompileOptions, NpuBackend
from carkp_core.context import Context
from carkp_core.ir import reference
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.ir.graph import Graph
from carkp_core.plugins import PluginManager, plugin_manager
from carkp_core.testing.findings import Findings

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]

BIT_EQUAL = "the reference executor defines the numbers; every form of a model must give the same, bit for bit"


def plain_context(march: str = "", plugins: PluginManager | None = None) -> Context:
    """Surroundings without a config: the installed plugins, or those given; without a march, the first offered."""
    plugins = plugins or plugin_manager()
    march = march or next((march for backend in plugins.backends() for march in backend.marches), "")
    return Context(
        plugins=plugins,
        catalog=plugins.catalog(),
        backends=plugins.backends(),
        march=march,
        task="check",
        ckpt_dir=Path(tempfile.gettempdir()),
    )


def random_inputs(graph: Graph, batch: int = 1) -> dict[str, Array]:
    """Every value of the type may occur; the same each time."""
    rng = np.random.default_rng(0)
    made = {}
    for declared in graph.inputs:
        low, high = INT_RANGE[declared.type.dtype]
        values = rng.integers(low, high + 1, (batch, *declared.type.shape[1:]))
        made[declared.name] = values.astype(declared.type.dtype)
    return made


def differing(expected: Mapping[str, Array], got: Mapping[str, Array]) -> dict[str, int]:
    """Tensor -> elements that differ (all, where the shape does), for tensors that differ at all."""
    found = {}
    for name, values in expected.items():
        other = got.get(name)
        if other is None or other.shape != values.shape:
            found[name] = values.size
            continue
        count = int(np.count_nonzero(other != values))
        if count:
            found[name] = count
    return found


def images(example_inputs: Mapping[str, torch.Tensor], batch: int = 2) -> list[torch.Tensor]:
    """Random images of the examples' shapes, in -1..1."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return [torch.rand((batch, *v.shape[1:]), generator=generator) * 2 - 1 for v in example_inputs.values()]


def check_on_march(found: Findings, graph: Graph, backend: NpuBackend, march: str, must_run: bool = True) -> None:
    """The march's checker, its simulator, its compiler and its machine, held to the reference executor."""
    report = backend.check(graph, march)
    if not report.ok:
        if must_run:
            for violation in report.violations:
                found.add(
                    f"{march} refuses {violation.node} at {violation.source or 'no known line'}: "
                    f"{violation.rule}: {violation.seen} (allowed: {violation.allowed})",
                    "a node that the NPU does not run ends on the CPU or stops the compiler",
                    violation.remedy,
                )
        return
    inputs = random_inputs(graph, 2)
    expected = reference.execute(graph, inputs)
    hold(found, f"the simulator of {march}", expected, backend.simulate(graph)(inputs))
    with tempfile.TemporaryDirectory() as folder:
        options = CompileOptions(march, "check", Path(folder) / "check.hbm", Path(folder))
        result = backend.compile(graph, options)
        if result.hbm is None:
            found.add(
                f"{march} accepts every node, but its compiler writes no program",
                "a verdict for the NPU means that the node compiles",
                "correct the checker or the compiler",
            )
            return
        one = {name: values[:1] for name, values in inputs.items()}
        answer = backend.run_program(backend.load_program(result.hbm), one)
    hold(found, f"the program for {march}", reference.execute(graph, one), answer)


def hold(found: Findings, who: str, expected: Mapping[str, Array], got: Mapping[str, Array]) -> None:
    """Note tensors that an executor computes differently."""
    wrong = differing(expected, got)
    text = ", ".join(f"{name} in {count} of {expected[name].size} elements" for name, count in wrong.items())
    found.expect(not wrong, f"{who} differs from the reference executor: {text}", BIT_EQUAL, _LAYER_BY_LAYER)


_LAYER_BY_LAYER = "compare layer by layer with `taps`, beginning at the first node that differs"
