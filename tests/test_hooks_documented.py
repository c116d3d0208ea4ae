"""Every hook has a section of its own in ``docs/hooks.md``, with its exact arguments, and a page that is current."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import carkp_bpu.hookspecs
import carkp_core.hookspecs

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
SPECS = [
    value
    for module in (carkp_core.hookspecs, carkp_bpu.hookspecs)
    for name, value in vars(module).items()
    if name.startswith("carkp_")
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_hook_is_documented(spec):
    assert inspect.getdoc(spec)
    sections = re.findall(rf"^### `{spec.__name__}`\n\n```text\n(.+)\n```\n\n\*(.+)\*\n\n(.+)", PAGE, re.MULTILINE)
    ((signature, _asked, text),) = sections
    for argument in inspect.signature(spec).parameters.values():
        assert f"{argument.name}: {argument.annotation}" in signature
    assert text.startswith(inspect.getdoc(spec).split()[0])


def test_every_hook_is_in_the_specifications_once():
    names = [spec.__name__ for spec in SPECS]
    assert len(set(names)) == len(names) > 8


def test_generated_pages_are_current():
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
