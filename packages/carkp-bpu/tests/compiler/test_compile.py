"""The whole compiler: figures, levels, refusals, and equal bytes from equal input."""

from __future__ import annotations

import os
import subprocess
import sys

import attrs
import pytest

from carkp_bpu.compiler.bound import lower_bound
from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.compiler.options import OPT_LEVELS, options_digest
from carkp_bpu.compiler.samples import NetworkBuilder, efficientnet_keypoints
from carkp_bpu.hbm import isa
from carkp_bpu.march import MARCHES, find_march
from carkp_bpu.perf.timeline import timeline
from carkp_core.backend import CompileOptions
from carkp_core.errors import BackendError
from carkp_core.ir import operators as ops
from carkp_core.ir.verify import verify

OPTIONS = CompileOptions(march="bayes", name="net", hbm="net.hbm", out_dir=".")


def compiled(graph, **changes):
    options = attrs.evolve(OPTIONS, **changes)
    return compile_graph(graph, find_march(options.march), options)


@pytest.fixture(scope="module")
def network():
    graph = efficientnet_keypoints()
    verify(graph)
    return graph


def test_the_lower_bound_counts_each_part_once(network):
    bound = lower_bound(network)
    assert bound.input_bytes == 3 * 128 * 128
    assert bound.output_bytes == 12 * 32 * 32
    assert bound.total == bound.input_bytes + bound.output_bytes + bound.weight_bytes + bound.channel_bytes


def test_half_a_megabyte_keeps_the_shipped_network_on_chip(network):
    stats = compiled(network, sram_bytes=512 << 10).stats
    assert stats.ddr_bytes <= 1.01 * stats.ddr_bytes_lower_bound
    assert stats.allocation_overhead <= 0.005
    assert stats.sram_peak_bytes <= 512 << 10
    assert stats.spilled_tensors == 0


def test_less_memory_and_lower_levels_move_more(network):
    best, small = compiled(network).stats, compiled(network, sram_bytes=128 << 10).stats
    naive = compiled(network, opt="O0").stats
    assert best.ddr_bytes < small.ddr_bytes < naive.ddr_bytes
    assert naive.resident_tensors == 0


def residual_network():
    """As a ResNet begins: wide maps, then residual blocks with a stride between them."""
    net = NetworkBuilder((1, 3, 64, 64))
    net.conv(32, 7, 2)
    net.add(ops.MaxPool((3, 3), (2, 2), (1, 1, 1, 1)))
    for filters, stride in ((32, 1), (64, 2)):
        begin = net.last
        short = begin if stride == 1 else net.conv(filters, 1, stride, lo=-128)
        net.conv(filters, 3, stride, source=begin)
        net.conv(filters, 3, residual=short)
    return net.graph()


def plain_network():
    """As a VGG begins: pairs of convolutions, and pools."""
    net = NetworkBuilder((1, 3, 64, 64))
    for filters in (16, 32, 64):
        net.conv(filters, 3)
        net.conv(filters, 3)
        net.add(ops.MaxPool((2, 2), (2, 2), (0, 0, 0, 0)))
    return net.graph()


@pytest.mark.parametrize(
    ("build", "sram_bytes"),
    [
        (lambda: efficientnet_keypoints(128), 512 << 10),
        (lambda: efficientnet_keypoints(64), 64 << 10),
        (residual_network, 128 << 10),
        (residual_network, 32 << 10),
        (plain_network, 160 << 10),
        (plain_network, 48 << 10),
    ],
)
def test_each_level_moves_less_and_takes_less_time(build, sram_bytes):
    graph = build()
    made = [compiled(graph, opt=opt, sram_bytes=sram_bytes) for opt in OPT_LEVELS]
    moved = [one.stats.ddr_bytes for one in made]
    cycles = [timeline(one.program, find_march("bayes")).cycles for one in made]
    assert moved == sorted(moved, reverse=True)
    assert cycles == sorted(cycles, reverse=True)
    assert moved[0] > 1.1 * moved[1]
    assert cycles[0] > 1.2 * cycles[2]


@pytest.mark.parametrize(("sram_bytes", "most"), [(128 << 10, 1.08), (256 << 10, 1.01), (512 << 10, 1.004)])
def test_cascades_keep_the_shipped_network_near_the_least(network, sram_bytes, most):
    stats = compiled(network, sram_bytes=sram_bytes).stats
    assert stats.ddr_bytes <= most * stats.ddr_bytes_lower_bound


@pytest.mark.parametrize("march", [march.name for march in MARCHES])
def test_every_march_compiles_to_its_own_memory(march):
    made = compiled(efficientnet_keypoints(64), march=march)
    assert made.program.march == march
    assert made.stats.sram_peak_bytes <= made.stats.sram_bytes == find_march(march).sram_bytes


def test_loads_of_parameters_do_not_wait_for_the_layer_before(network):
    """Prefetch: under O2 nearly all parameters of the late layers are loaded under earlier ones."""
    made = compiled(network).program
    loads = [i for i in made.instructions if isinstance(i, isa.Load) and i.ddr < made.description.constant_bytes]
    convs = sum(isinstance(i, (isa.Conv, isa.Deconv)) for i in made.instructions)
    assert sum(load.waits[2] < convs // 3 for load in loads) > len(loads) // 2


def test_a_layer_too_large_for_the_memory_is_named():
    net = NetworkBuilder((1, 64, 8, 8))
    net.conv(64, 7)
    with pytest.raises(BackendError, match="smallest tile") as caught:
        compiled(net.graph(), sram_bytes=2048)
    assert caught.value.where == "layer conv2d0 of net.conv2d0 (net.py:1)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"opt": "O7"}, "opt is unknown"), ({"input_source": "usb"}, "input_source"), ({"sram_bytes": 3}, "sram_bytes")],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    net = NetworkBuilder((1, 3, 4, 4))
    net.conv(4)
    with pytest.raises(BackendError, match=message):
        compiled(net.graph(), **changes)


def test_the_digest_follows_what_changes_a_program():
    march = find_march("bayes")
    base = options_digest(OPTIONS, march)
    assert options_digest(attrs.evolve(OPTIONS, out_dir="elsewhere", layer_details=False), march) == base
    assert options_digest(attrs.evolve(OPTIONS, sram_bytes=march.sram_bytes), march) == base
    for changes in ({"opt": "O0"}, {"name": "other"}, {"sram_bytes": 1 << 16}, {"input_source": "ddr"}):
        assert options_digest(attrs.evolve(OPTIONS, **changes), march) != base


SCRIPT = """
from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.compiler.samples import efficientnet_keypoints
from carkp_bpu.march import find_march
from carkp_core.backend import CompileOptions
options = CompileOptions(march="bayes", name="net", hbm="net.hbm", out_dir=".", sram_bytes=131072)
print(compile_graph(efficientnet_keypoints(64), find_march("bayes"), options).program.sha256)
"""


def test_bytes_are_equal_across_processes_and_hash_seeds():
    seen = set()
    for seed, threads in (("0", "1"), ("12345", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
        seen.add(run.stdout.strip())
    assert len(seen) == 1
    assert len(seen.pop()) == 64
