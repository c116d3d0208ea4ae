"""The three distributions move together: one version, exact sibling pins, the same Python."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent
NAMES = ("carkp-core", "carkp-carfusion", "carkp-bpu")
PROJECTS = {n: tomllib.loads((ROOT / "packages" / n / "pyproject.toml").read_text())["project"] for n in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_one_version(name):
    version = PROJECTS["carkp-core"]["version"]
    assert PROJECTS[name]["version"] == version
    assert importlib.import_module(name.replace("-", "_")).__version__ == version


@pytest.mark.parametrize("name", NAMES)
def test_siblings_are_pinned_exactly(name):
    siblings = [d for d in PROJECTS[name]["dependencies"] if d.startswith("carkp-")]
    version = PROJECTS[name]["version"]
    assert all(re.fullmatch(rf"carkp-(core|bpu)=={re.escape(version)}", d) for d in siblings)
    assert (name == "carkp-core") == (not siblings)


@pytest.mark.parametrize("name", NAMES)
def test_python_torch_and_types(name):
    assert PROJECTS[name]["requires-python"] == ">=3.10"
    (torch,) = [d for d in PROJECTS[name]["dependencies"] if d.startswith("torch")]
    assert "<" not in torch
    assert "==" not in torch
    assert (ROOT / "packages" / name / "src" / name.replace("-", "_") / "py.typed").exists()


def test_entry_points_name_plugin_modules():
    for name in ("carkp-carfusion", "carkp-bpu"):
        (value,) = PROJECTS[name]["entry-points"]["carkp"].values()
        assert value == f"{name.replace('-', '_')}.plugin"
