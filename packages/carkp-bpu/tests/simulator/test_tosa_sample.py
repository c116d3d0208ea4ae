"""The graph simulator computes what TOSA's reference model computed for a fixed sample of programs."""

from __future__ import annotations

import pytest

from carkp_bpu.simulator.graph import simulate
from conformance.fuse import fuse
from conformance.sample import committed_digests, sample_programs, values_digest

PROGRAMS = {program.name: program for program in sample_programs()}
DIGESTS = committed_digests()


@pytest.mark.parametrize("int8_multiply", [None, False])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_simulator_conforms(name: str, int8_multiply: bool | None) -> None:
    program = PROGRAMS[name]
    translation = fuse(program)
    found = simulate(translation.graph, threads=1, int8_multiply=int8_multiply)(translation.inputs)
    (output,), (last,) = program.outputs, translation.graph.outputs
    assert values_digest({output: translation.layout.tosa(found[last])}) == DIGESTS[name]["expected"]
