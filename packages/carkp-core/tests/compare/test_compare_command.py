"""``carkp compare`` as it is typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from compare_toys import change, graph_of, other_multiplier, put
from npu_toys import toy_plugins

from carkp_core.commands.compare import compare
from carkp_core.errors import CarkpError


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(compare, [*arguments, "--config", str(folder / "toy.py")], obj=toy_plugins())


def test_equal_models_exit_0(folder: Path) -> None:
    result = run(folder, "calibration", "hbm", "--json", str(folder / "out.json"))
    assert result.exit_code == 0, result.output
    assert "there is no program yet" in result.stderr
    assert "calibration and hbm: 7 layers, 8 images" in result.stdout
    assert "0 of 19,200 elements differ" in result.stdout
    assert "first difference" not in result.stdout
    assert json.loads((folder / "out.json").read_text())["differing_elements"] == 0


def test_different_models_exit_1_and_say_where(folder: Path) -> None:
    whole = graph_of(folder)
    put(folder, change(whole, "stem", other_multiplier))
    result = run(folder, "calibration", "int_infer", "--num-samples", "3", "--html", str(folder / "page.html"))
    assert result.exit_code == 1, result.output
    words = result.stdout
    assert "first difference: stem (conv2d)" in words
    assert re.search(r"element \[2, \d, \d\] of sample 0", words)
    for side in (whole, graph_of(folder)):
        assert str(side.node("stem").op.multiplier[2]) in words  # type: ignore[attr-defined]
    assert "the layer itself differs: multiplier: 1 of 6 differ, first [2]" in words
    assert re.search(r"^ stem +\d+ +1,152 +\d", words, re.MULTILINE)
    assert (folder / "page.html").exists()


def test_beside_float_exit_is_0(folder: Path) -> None:
    result = run(folder, "int_infer", "float", "--num-samples", "2")
    assert result.exit_code == 0, result.output
    assert re.search(r"^ head +\d\d\.\d +0\.\d{5} +\d\d\.\d", result.stdout, re.MULTILINE)
    assert "most error is added by" in result.stdout


def test_on_image_files(folder: Path) -> None:
    image = folder / "image.npy"
    np.save(image, np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    result = run(folder, "calibration", "int_infer", "--images", str(image))
    assert result.exit_code == 0, result.output
    assert "7 layers, 1 image\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("calibraton", "hbm"), "did you mean 'calibration'"),
        (("int_infer", "none.onnx"), "no such ONNX file"),
        (("calibration", "int_infer", "--images", "none.npy"), "the image cannot be read"),
    ],
)
def test_bad_input_exits_2(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(folder, *arguments)
    assert isinstance(result.exception, CarkpError)
    assert result.exception.exit_status == 2
    assert message in str(result.exception)


def test_one_side_alone_is_a_usage_error(folder: Path) -> None:
    assert run(folder, "calibration").exit_code == 2
