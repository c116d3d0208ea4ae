"""What carkp-bpu offers, and that offering it costs nothing."""

from __future__ import annotations

import subprocess
import sys

from carkp_bpu import plugin
from carkp_bpu.backend import BpuBackend
from carkp_bpu.march import MARCHES as TABLES
from carkp_core.backend import find_backend


def test_every_march_has_a_table():
    assert set(plugin.MARCHES) == {table.name for table in TABLES}


def test_the_backend_is_found_by_march():
    for march in plugin.MARCHES:
        assert isinstance(find_backend(plugin.carkp_backends(), march), BpuBackend)


def test_naming_the_parts_imports_nothing_heavy():
    program = (
        "import sys, carkp_bpu.plugin as p; list(p.carkp_backends()); list(p.carkp_commands()); "
        "import carkp_bpu.backend; "
        "print([m for m in ('torch', 'numba', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_commands_can_be_loaded():
    for command in plugin.carkp_commands():
        assert command.resolve().name == command.name
