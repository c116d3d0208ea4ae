"""Programs as files: round trip, damage, hand-over of facts, the frozen file of format 1."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carkp_bpu import __version__
from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.compiler.samples import NetworkBuilder, random_inputs
from carkp_bpu.hbm.container import pack_sections, unpack_sections
from carkp_bpu.hbm.program import load, parse_program, write
from carkp_bpu.march import find_march
from carkp_bpu.simulator.machine import run_program
from carkp_core.backend import CompileOptions
from carkp_core.errors import BackendError
from carkp_core.ir.reference import execute

FROZEN = Path(__file__).parent / "format1.hbm"


def sample_graph():
    net = NetworkBuilder((1, 3, 8, 8), seed=5)
    begin = net.conv(6, 3, 2)
    net.conv(6, 3, residual=begin)
    net.deconv(4)
    return net.graph()


@pytest.fixture(scope="module")
def program():
    options = CompileOptions(march="bayes", name="net", hbm="net.hbm", out_dir=".", sram_bytes=4096)
    return compile_graph(sample_graph(), find_march("bayes"), options).program


def test_a_file_holds_the_program(program, tmp_path):
    sha256 = write(program, tmp_path / "deep" / "net.hbm")
    again = load(tmp_path / "deep" / "net.hbm")
    assert attrs.asdict(again.description) == attrs.asdict(program.description)
    assert again.instructions == program.instructions
    assert again.debug == program.debug
    assert again.sha256 == sha256 == program.sha256
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["net.hbm"]


def test_a_program_states_what_core_asks(program):
    graph = sample_graph()
    assert (program.name, program.march) == ("net", "bayes")
    assert program.graph_digest == graph.digest()
    assert program.inputs == {"img": ((1, 3, 8, 8), "int8", 1 / 128)}
    assert list(program.outputs) == list(graph.outputs)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BackendError, match="cannot be read") as caught:
        load(tmp_path / "none.hbm")
    assert str(caught.value.where).endswith("none.hbm")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**7), byte=st.integers(1, 255), cut=st.booleans())
def test_damage_only_raises_backend_error(program, position, byte, cut):
    data = bytearray(program.to_bytes())
    position %= len(data)
    data[position] ^= byte
    with pytest.raises(BackendError):
        parse_program(bytes(data[:position] if cut else data))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    section=st.sampled_from(["model", "debug", "instructions"]),
    position=st.integers(0, 10**7),
    byte=st.integers(1, 255),
)
def test_damage_behind_right_checksums_only_raises_backend_error(program, section, position, byte):
    sections = unpack_sections(program.to_bytes())
    damaged = bytearray(sections[section])
    damaged[position % len(damaged)] ^= byte
    try:
        read = parse_program(pack_sections({**sections, section: bytes(damaged)}))
        run_program(read, random_inputs(sample_graph(), 1))
    except BackendError:
        return


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("features", ["teleport"], "features that this carkp-bpu lacks"),
        ("march", 7, "description cannot be read"),
        ("march", "zen5", "a march that this carkp-bpu does not know"),
        ("sram_bytes", -1, "description cannot be read"),
        ("extra", 1, "description cannot be read"),
        ("constant_bytes", 0, "differ in size"),
    ],
)
def test_a_wrong_description_is_refused(program, field, value, message):
    sections = unpack_sections(program.to_bytes())
    raw = json.loads(sections["model"]) | {field: value}
    with pytest.raises(BackendError, match=message):
        parse_program(pack_sections({**sections, "model": json.dumps(raw).encode()}))


def test_a_file_of_a_newer_format_or_march_is_named_with_both_versions(program, tmp_path):
    newer = tmp_path / "newer.hbm"
    data = bytearray(program.to_bytes())
    data[8] += 1
    newer.write_bytes(data)
    with pytest.raises(BackendError, match="another format version") as caught:
        load(newer)
    facts = (caught.value.where, caught.value.seen, caught.value.allowed, caught.value.remedy)
    assert facts == (str(newer), "version 2", "version 1", "update carkp-bpu")

    other = attrs.evolve(program, description=attrs.evolve(program.description, march="zen5", compiler="carkp-bpu 9.1"))
    write(other, newer)
    with pytest.raises(BackendError, match="a march that") as caught:
        load(newer)
    assert caught.value.where == str(newer)
    assert caught.value.seen == "'zen5', in a program by carkp-bpu 9.1"
    assert "bayes-e" in str(caught.value.allowed)
    assert f"carkp-bpu {__version__}" in str(caught.value.allowed)


def test_todays_format_stays_readable():
    """A file written when format 1 was fixed, with the network it was made from."""
    program, graph = load(FROZEN), sample_graph()
    assert program.graph_digest == graph.digest()
    inputs = random_inputs(graph, 2)
    expected = execute(graph, inputs)
    for name, value in run_program(program, inputs).items():
        np.testing.assert_array_equal(value, expected[name])
    assert program.to_bytes() == FROZEN.read_bytes()
