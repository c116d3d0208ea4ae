from __future__ import annotations

import io

from rich.console import Console

from carkp_core import progress


def test_plain_lines_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    stream = io.StringIO()
    assert list(progress.track([1, 2], "work", console=Console(file=stream))) == [1, 2]
    assert [line.split(" after")[0] for line in stream.getvalue().splitlines()] == ["work: 1/2", "work: 2/2"]


def test_a_bar_on_a_terminal():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    with progress.progress("work", 3, console) as advance:
        advance(2, note="loss 0.1")
        advance()
    assert "work" in stream.getvalue()


def test_unknown_totals():
    stream = io.StringIO()
    assert list(progress.track(iter([1]), "work", console=Console(file=stream))) == [1]
