"""What can be walked: the same names everywhere, and programs that have lost tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from compare_toys import graph_of, opened, put
from npu_toys import ToyBackend

from carkp_core.compare.comparison import compare_session, open_side
from carkp_core.compare.integers import IntegerFindings
from carkp_core.compare.sides import held_tensors
from carkp_core.errors import BackendError, CheckpointError, ConfigError, GraphError
from carkp_core.ir import reference

LAYERS = ["stem", "wide", "narrow", "avg_pool2d", "up", "cat", "head"]


@pytest.mark.parametrize("name", ["float", "calibration", "qat", "int_infer", "hbm"])
def test_all_sides_name_the_same_tensors_in_execution_order(folder: Path, name: str) -> None:
    side = open_side(opened(folder), name)
    assert list(side.tensors) == ["img", *LAYERS]
    assert side.tensors["up"].op == "conv_transpose2d"
    assert "compare_toys.py" in side.tensors["up"].source
    assert (side.graph is None) == (name == "float")


class Losing:
    """A program of which the compiler has removed some tensors."""

    def __init__(self, graph: Any, removed: set[str]) -> None:
        self.graph, self.removed, self.runs = graph, removed, 0
        self.outputs = dict.fromkeys(graph.outputs)

    def __call__(self, inputs: Any, taps: Any = ()) -> Any:
        self.runs += 1
        if self.removed & set(taps):
            raise BackendError(f"the program holds no tensor {sorted(self.removed & set(taps))[0]!r}")
        return reference.execute(self.graph, inputs, taps)


@pytest.mark.parametrize(("removed", "most_runs"), [((), 2), (("wide",), 8), (("stem", "cat"), 12), (LAYERS[:-1], 16)])
def test_tensors_that_a_program_has_lost_are_left_out(trained: Path, removed: tuple[str, ...], most_runs: int) -> None:
    program: Any = Losing(graph_of(trained), set(removed))
    held = held_tensors(program, program.graph, program)
    assert held == [name for name in LAYERS if name not in removed]
    assert program.runs <= most_runs


def test_a_program_that_cannot_run_says_so(trained: Path) -> None:
    def broken(inputs: Any, taps: Any = ()) -> Any:
        raise BackendError("instruction 3 reads what nobody wrote")

    with pytest.raises(BackendError, match="instruction 3"):
        held_tensors(broken, graph_of(trained), Losing(graph_of(trained), set()))  # type: ignore[arg-type]


def test_what_the_program_lost_is_said_and_the_rest_compared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ToyBackend.run_program

    def losing(self: ToyBackend, program: Any, inputs: Any, taps: Any = ()) -> Any:
        if "narrow" in taps:
            raise GraphError("no tensor 'narrow'")
        return run(self, program, inputs, taps)

    monkeypatch.setattr(ToyBackend, "run_program", losing)
    found = compare_session(opened(folder), ("int_infer", "hbm"), num_samples=2)
    assert found.ok
    assert found.notes == ("not in the program, so not compared: narrow",)
    assert found.only_a == ("narrow",)
    assert isinstance(found.findings, IntegerFindings)
    assert [layer.name for layer in found.findings.layers] == ["img", *(n for n in LAYERS if n != "narrow")]


def test_a_stage_that_was_not_run_says_which_command_runs_it(folder: Path) -> None:
    (folder / "models" / "calibration-checkpoint-best.pth.tar").unlink()
    with pytest.raises(CheckpointError, match="carkp train --stage calibration"):
        open_side(opened(folder), "calibration")
    (folder / "models" / "int_infer-checkpoint-best.ir").unlink()
    for name in ("int_infer", "hbm"):
        with pytest.raises(CheckpointError, match="carkp train --stage int_infer"):
            open_side(opened(folder), name)


def test_an_integer_model_of_another_march_is_refused(folder: Path) -> None:
    put(folder, attrs.evolve(graph_of(folder), metadata={"march": "toy-2"}))
    with pytest.raises(CheckpointError, match="'toy-2', not for 'toy-1'"):
        open_side(opened(folder), "int_infer")


def test_a_predictor_without_quantization_is_no_integer_model(folder: Path) -> None:
    with (folder / "toy.py").open("a") as config:
        config.write("calibration_predictor = dict(type='Predictor', model=model, data_loader=val_data_loader)\n")
    with pytest.raises(ConfigError, match="predictor's model is not quantized"):
        open_side(opened(folder), "calibration")
