"""Importing carkp's light modules is light, and importing anything has no side effects worth the name."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import carkp_bpu
import carkp_carfusion
import carkp_core

HEAVY = {"torch", "cv2", "lmdb", "numba", "onnx", "matplotlib", "joblib"}
LIGHT = (
    "carkp_core.hookspecs",
    "carkp_core.plugins",
    "carkp_core.catalog",
    "carkp_core.backend",
    "carkp_core.cli",
    "carkp_core.session",
    "carkp_core.config.check",
    "carkp_core.config.recipe",
    "carkp_core.plugin",
    "carkp_bpu.plugin",
    "carkp_carfusion.plugin",
)


def modules_of(package):
    return [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]


def test_light_modules_import_nothing_heavy():
    program = f"import {', '.join(LIGHT)}, sys; print({HEAVY!r} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize("package", [carkp_core, carkp_carfusion, carkp_bpu], ids=lambda p: p.__name__)
def test_every_module_imports_silently_and_seeds_nothing(package):
    names = [n for n in modules_of(package) if ".configs" not in n and not n.endswith("__main__")]
    program = (
        "import importlib, logging, numpy, torch\n"
        "numpy.random.seed(1); torch.manual_seed(1)\n"
        "before = numpy.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()\n"
        "handlers = list(logging.root.handlers)\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "after = numpy.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()\n"
        "assert after == before, 'seeded at import'\n"
        "assert logging.root.handlers == handlers, 'logging configured at import'\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:carkp", "-c", program], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
