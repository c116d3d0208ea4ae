"""Networks of many families through trace, check, fast-perf and compile, on every march whose checker accepts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES
from torch import nn

from carkp_bpu.backend import BpuBackend
from carkp_bpu.plugin import MARCHES
from carkp_core.backend import CompileOptions
from carkp_core.ir import reference
from carkp_core.ir.graph import Graph
from carkp_core.quant.fast import fast_graph

torch.set_num_threads(1)

#: What bernoulli2's published limits exclude: reshapes that move data, large kernels and windows. All else runs.
REFUSED = {
    "bernoulli2": {
        "shufflenet v1", "shufflenet v2", "sknet", "mixer", "vgg", "vgg at another size", "cbam", "mobilefacenet",
        "decoder", "tresnet",
    },
}  # fmt: skip


def graph_of(family: str) -> Graph:
    torch.manual_seed(0)
    net = FAMILIES[family]().eval()
    for norm in (module for module in net.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))):
        norm.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return fast_graph(net, {"img": torch.zeros(1, 3, 32, 32)}, name=family)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_runs_to_the_last_bit(family: str, tmp_path: Path) -> None:
    graph, backend = graph_of(family), BpuBackend()
    rng = np.random.default_rng(0)
    inputs = {i.name: rng.integers(-128, 128, i.type.shape).astype(i.type.dtype) for i in graph.inputs}
    expected = reference.execute(graph, inputs)
    fast = backend.simulate(graph)(inputs)
    assert {name: int((fast[name] != values).sum()) for name, values in expected.items()} == dict.fromkeys(expected, 0)
    refused = set()
    for march in MARCHES:
        options = CompileOptions(march, "net", tmp_path / march / "net.hbm", tmp_path / march)
        result = backend.compile(graph, options)
        assert result.performance.latency_ms > 0
        if not result.check.ok:
            refused.add(march)
            assert all(
                v.seen and v.allowed and v.remedy and "families.py:" in v.source for v in result.check.violations
            )
            continue
        got = backend.run_program(backend.load_program(options.hbm), inputs)
        assert {n: int((got[n] != values).sum()) for n, values in expected.items()} == dict.fromkeys(expected, 0), march
    assert refused == {march for march, names in REFUSED.items() if family in names}
