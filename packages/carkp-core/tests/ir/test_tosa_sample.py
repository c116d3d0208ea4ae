"""The reference executor computes what TOSA's reference model computed for a fixed sample of programs.

``nox -s conformance`` checks that the committed digests are still what the model says, and runs TOSA's own tests.
"""

from __future__ import annotations

import numpy as np
import pytest

from carkp_core.ir import arithmetic, reference
from conformance.fuse import fuse
from conformance.program import Program
from conformance.sample import committed_digests, program_digest, sample_programs, values_digest

PROGRAMS = {program.name: program for program in sample_programs()}
DIGESTS = committed_digests()


def conforms(program: Program) -> bool:
    translation = fuse(program)
    found = reference.execute(translation.graph, translation.inputs)
    (output,), (name,) = program.outputs, translation.graph.outputs
    return values_digest({output: translation.layout.tosa(found[name])}) == DIGESTS[program.name]["expected"]


def test_the_sample_is_the_one_that_the_model_ran() -> None:
    assert len(PROGRAMS) > 100
    assert {name: program_digest(program) for name, program in PROGRAMS.items()} == {
        name: both["program"] for name, both in DIGESTS.items()
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_reference_executor_conforms(name: str) -> None:
    assert conforms(PROGRAMS[name])


def floor(value: arithmetic.IntArray, shift: arithmetic.IntArray | int) -> arithmetic.IntArray:
    return np.right_shift(np.asarray(value, dtype=np.int64), np.asarray(shift, dtype=np.int64))


def shift_off_by_one(value: arithmetic.IntArray, shift: arithmetic.IntArray | int) -> arithmetic.IntArray:
    half = np.left_shift(np.int64(1), np.asarray(shift, dtype=np.int64))
    return np.right_shift(np.asarray(value, dtype=np.int64) + half, np.asarray(shift, dtype=np.int64) + 1)


def half_to_even(value: arithmetic.IntArray, shift: arithmetic.IntArray | int) -> arithmetic.IntArray:
    rounded = arithmetic_shift(value, shift)
    ties = np.asarray(value) == np.left_shift(rounded, shift) - arithmetic.rounding_half(shift)
    return rounded - (ties & (rounded % 2 == 1))


arithmetic_shift = arithmetic.shift_right_round


@pytest.mark.parametrize("mutant", [floor, shift_off_by_one, half_to_even])
def test_another_rounding_does_not_conform(mutant: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "shift_right_round", mutant)
    assert sum(not conforms(program) for program in PROGRAMS.values()) > 3
