"""``carkp hbm``: info, disasm, asm, run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.compiler.samples import NetworkBuilder, random_inputs
from carkp_bpu.hbm.program import load, write
from carkp_bpu.hbm_commands import hbm
from carkp_bpu.march import find_march
from carkp_bpu.perf.timeline import timeline
from carkp_core.backend import CompileOptions
from carkp_core.errors import BackendError
from carkp_core.ir.reference import execute

TRAFFIC = ("loaded_bytes", "stored_bytes", "instruction_bytes")


@pytest.fixture
def graph():
    net = NetworkBuilder((1, 3, 8, 8))
    net.conv(6, 3, 2)
    net.deconv(4)
    return net.graph()


@pytest.fixture
def file(graph, tmp_path):
    options = CompileOptions(march="bayes-e", name="net", hbm=tmp_path / "net.hbm", out_dir=tmp_path)
    write(compile_graph(graph, find_march("bayes-e"), options).program, options.hbm)
    return options.hbm


def invoke(*arguments: object):
    result = CliRunner().invoke(hbm, [str(a) for a in arguments], catch_exceptions=True)
    if isinstance(result.exception, BackendError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_info(file, tmp_path):
    out = invoke("info", file, "--json", tmp_path / "info.json").output
    facts = json.loads((tmp_path / "info.json").read_text())
    assert facts["march"] == "bayes-e"
    assert facts["instructions"]["conv"] >= 1
    plan = facts["plan"]
    assert facts["allocation_overhead"] == round(plan["sram_peak_bytes"] / plan["sram_live_bound_bytes"] - 1, 6)
    assert "allocation_overhead" in out
    assert "bayes-e" in out


def test_a_listing_assembles_to_the_same_bytes(file, tmp_path):
    invoke("disasm", file, "--out", tmp_path / "net.txt")
    text = (tmp_path / "net.txt").read_text()
    assert "net.conv2d0 (net.py:1)" in text
    assert invoke("disasm", file).output == text
    invoke("asm", file, tmp_path / "net.txt", "--out", tmp_path / "again.hbm")
    assert (tmp_path / "again.hbm").read_bytes() == file.read_bytes()


def test_run_equals_the_reference(file, graph, tmp_path):
    inputs = random_inputs(graph, 2)
    np.savez(tmp_path / "in.npz", **inputs)
    invoke("run", file, "--inputs", tmp_path / "in.npz", "--out", tmp_path / "out.npz", "--tap", "conv2d0",
           "--json", tmp_path / "run.json")  # fmt: skip
    expected = execute(graph, inputs, ["conv2d0"])
    with np.load(tmp_path / "out.npz") as stored:
        assert set(stored.files) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(stored[name], value)
    facts = json.loads((tmp_path / "run.json").read_text())
    program = load(file)
    assert facts["traffic"]["ddr_bytes"] == sum(program.description.plan[k] for k in TRAFFIC)
    assert facts["cycles"] == timeline(program, find_march("bayes-e")).cycles


def test_listings_as_json(file, tmp_path):
    """Every instruction with its fields, and what assembling made of them."""
    invoke("disasm", file, "--out", tmp_path / "net.txt", "--json", tmp_path / "net.json")
    program, listed = load(file), json.loads((tmp_path / "net.json").read_text())
    assert listed["sha256"] == program.sha256
    assert [one["kind"] for one in listed["instructions"]] == [type(i).__name__.lower() for i in program.instructions]
    conv = next(one for one in listed["instructions"] if one["kind"] == "conv")
    assert conv["layer"] == "layer conv2d0 (conv2d) of net.conv2d0 (net.py:1)"
    assert conv["fields"]["kernel_hw"] == [3, 3]
    invoke("asm", file, tmp_path / "net.txt", "--out", tmp_path / "again.hbm", "--json", tmp_path / "asm.json")
    made = json.loads((tmp_path / "asm.json").read_text())
    assert (made["sha256"], made["same"], made["debug_table"]) == (program.sha256, True, True)
    short = "\n".join(line for line in (tmp_path / "net.txt").read_text().splitlines() if not line.startswith("store"))
    (tmp_path / "net.txt").write_text(short)
    invoke("asm", file, tmp_path / "net.txt", "--out", tmp_path / "other.hbm", "--json", tmp_path / "asm.json")
    made = json.loads((tmp_path / "asm.json").read_text())
    assert (made["same"], made["debug_table"]) == (False, False)


def test_run_without_inputs_uses_zeros(file):
    assert "DDR bytes" in invoke("run", file, "--frames", 3).output


def test_problems_are_named(file, tmp_path):
    with pytest.raises(BackendError, match="cannot be read"):
        invoke("info", tmp_path / "none.hbm")
    (tmp_path / "bad.txt").write_text("nonsense\n")
    with pytest.raises(BackendError, match=r"bad\.txt, line 1: this line is not an instruction"):
        invoke("asm", file, tmp_path / "bad.txt", "--out", tmp_path / "x.hbm")
    np.savez(tmp_path / "bad.npz", img=np.zeros((1, 3, 8, 9), np.int8))
    with pytest.raises(BackendError, match=r"bad\.npz: input 'img' has another shape"):
        invoke("run", file, "--inputs", tmp_path / "bad.npz")
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(BackendError, match="inputs cannot be read"):
        invoke("run", file, "--inputs", tmp_path / "bad.npz")


def test_damaged_inputs_are_named_and_never_a_traceback(file, tmp_path):
    whole, path = tmp_path / "whole.npz", tmp_path / "in.npz"
    np.savez(whole, img=np.zeros((1, 3, 16, 16), np.int8), more=np.arange(4000))
    data = bytearray(whole.read_bytes())
    data[len(data) // 2] ^= 0xFF
    array, objects = tmp_path / "a.npy", tmp_path / "o.npz"
    np.save(array, np.zeros(3))
    np.savez(objects, img=np.array([{}], object))
    for content in (b"", whole.read_bytes()[:200], bytes(data), array.read_bytes(), objects.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(BackendError, match=r"in\.npz: the inputs cannot be read"):
            invoke("run", file, "--inputs", path)
