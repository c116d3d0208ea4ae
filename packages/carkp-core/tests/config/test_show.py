from __future__ import annotations

from carkp_core.config.show import show
from carkp_core.config.source import run_config

TEXT = 'root = "a"\nd = dict(\n    type=len,\n    items=[dict(k=1), 2],\n    empty={},\n)\n'

GOLDEN = """\
root = 'a'  # c.py:1
d = dict(  # c.py:2
    type=builtins.len,  # c.py:3
    items=[  # c.py:4
        dict(
            k=1,  # c.py:4
        ),
        2,
    ],
    empty={},  # c.py:5
)"""


def test_text_with_origins(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(TEXT)
    assert "\n".join(show(run_config(path, {}))) == GOLDEN


def test_overrides_are_named(tmp_path):
    path = tmp_path / "c.py"
    path.write_text('root = "a"\n')
    assert list(show(run_config(path, {"root": "b"}))) == ["root = 'b'  # --opts"]
