"""The conformance session sees a difference, names why a test is left out, and asks for enough tests."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest

from carkp_core.ir.reference import execute
from conformance.program import Operator, Program, Tensor, load, save
from conformance.run import Outcome, judge, main, summarize
from conformance.sample import sample_programs
from conformance.translate import translate

SAMPLE = {program.name.split("_", 1)[1]: program for program in sample_programs()}
#: One operator each, which the IR has as it is.
CLAMP, MAX_POOL = SAMPLE["moved_clamp_int8"], SAMPLE["pool_max_pool2d_int8"]


def answered(program: Program) -> Program:
    """The program with the reference executor's answer as the expected one."""
    translation = translate(program)
    found = execute(translation.graph, translation.inputs)
    pairs = zip(program.outputs, translation.graph.outputs, strict=True)
    return attrs.evolve(program, expected={output: translation.layout.tosa(found[name]) for output, name in pairs})


def changed(program: Program, **attributes: object) -> Program:
    """The program with other attributes of its first operator."""
    first = attrs.evolve(program.operators[0], attributes={**program.operators[0].attributes, **attributes})
    return attrs.evolve(program, operators=(first, *program.operators[1:]))


def test_programs_survive_their_files(tmp_path: Path) -> None:
    program = answered(MAX_POOL)
    save(program, tmp_path)
    assert judge(load(tmp_path)) == judge(program) == Outcome(program.name, "int8")


def test_one_wrong_element_fails_on_both_executors() -> None:
    program = answered(CLAMP)
    (name,) = program.outputs
    wrong = program.expected[name].copy()
    wrong.reshape(-1)[3] += 1
    outcome = judge(attrs.evolve(program, expected={name: wrong}))
    assert (outcome.differing_reference, outcome.differing_simulator) == (1, 1)


def test_another_shape_or_type_fails() -> None:
    program = answered(CLAMP)
    ((name, value),) = program.expected.items()
    for expected in (value[None], value.astype(np.int16)):
        assert judge(attrs.evolve(program, expected={name: expected})).failed


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (changed(SAMPLE["rescaled_int8_int8"], input_unsigned=True), "unsigned type"),
        (changed(SAMPLE["rescaled_int8_int8"], rounding_mode="DOUBLE_ROUND"), "double rounding"),
        (changed(SAMPLE["rescaled_int8_int8"], rounding_mode="INEXACT_ROUND"), "inexact rounding"),
        (SAMPLE["layer_conv2d_int16"], "48-bit accumulators"),
    ],
)
def test_what_is_left_out_has_its_reason(program: Program, reason: str) -> None:
    assert judge(program).left_out == reason


def test_a_zero_point_is_left_out() -> None:
    program = SAMPLE["rescaled_int8_int8"]
    zero = program.operators[0].inputs[3]
    assert judge(attrs.evolve(program, values={**program.values, zero: np.int8([5])})).left_out == "zero point not 0"


def test_too_few_of_the_judged_type_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = attrs.evolve(CLAMP, name="wide", tensors={**CLAMP.tensors, "unused": Tensor((1,), "int48")})
    for index in range(4):
        save(answered(CLAMP), tmp_path / "clamp" / str(index))
    save(wide, tmp_path / "clamp" / "wide")
    with pytest.raises(SystemExit, match="1"):
        main([str(tmp_path)])
    assert "4/5 int8 TOO FEW" in capsys.readouterr().out


def test_not_counted_is_not_judged() -> None:
    row = summarize("clamp", [Outcome("a", "int8"), Outcome("b", "int8", left_out="unsigned type")])
    assert (row.generated, row.counted, row.run, row.enough) == (2, 1, 1, True)


def test_an_unknown_operator_is_an_error() -> None:
    other = attrs.evolve(CLAMP, operators=(Operator("ARGMAX", {}, CLAMP.operators[0].inputs, "tensor-0"),))
    with pytest.raises(KeyError, match="ARGMAX"):
        translate(other)
