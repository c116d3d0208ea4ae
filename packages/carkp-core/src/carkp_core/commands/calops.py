"""``carkp calops``: what a network costs before it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from carkp_core.cli_options import config_options, write_json
from carkp_core.errors import ConfigError
from carkp_core.session import Session, open_session

if TYPE_CHECKING:
    import torch

    from carkp_core.ops_count import OpsReport

#: What ``calops_cfg`` may hold. ``method`` is known from the tutorial's family; all methods count the same.
CALOPS_KEYS = ("input_shape", "method")
PAGE_COLUMNS = 160


@click.command("calops")
@config_options
@click.option("--depth", type=click.IntRange(min=1), default=None, help="Add up modules below this depth of the path.")
@click.pass_context
def calops(
    ctx: click.Context,
    config: str,
    march: str | None,
    opts: tuple[str, ...],
    json_path: Path | None,
    depth: int | None,
) -> None:
    """Count the multiply-accumulates and parameters of the network that is deployed, module by module."""
    report = count_session(open_session(config, opts, march, plugins=ctx.obj))
    print_report(report.grouped(depth) if depth else report)
    write_json(json_path, report.to_json())


def count_session(session: Session) -> OpsReport:
    """Count the session's deployed network on its deploy inputs, or on ``calops_cfg["input_shape"]``."""
    from carkp_core.ops_count import count_ops

    network, inputs = session.deploy()
    shape = _input_shape(session.config.get("calops_cfg") or {})
    return count_ops(network, inputs if shape is None else _zeros(inputs, shape))


def print_report(report: OpsReport, console: Console | None = None) -> None:
    """Print a table of modules and the totals: ``227.33 M MACs, 4,153,100 parameters``."""
    console = console or _console()
    table = Table(box=None, header_style="bold")
    for title in ("module", "type", "output"):
        table.add_column(title, overflow="fold")
    for title in ("parameters", "MACs", "share"):
        table.add_column(title, justify="right")
    total = report.macs or 1
    for module in report.modules:
        output = "" if module.output_shape is None else "x".join(map(str, module.output_shape))
        share = f"{100 * module.macs / total:.1f} %"
        table.add_row(module.path, module.kind, output, f"{module.params:,}", f"{module.macs:,}", share)
    console.print(table)
    console.print(totals(report), highlight=False)


def _console() -> Console:
    """Return the terminal, or where there is none a page that is wide enough for the table."""
    console = Console()
    return console if console.is_terminal else Console(width=PAGE_COLUMNS)


def totals(report: OpsReport) -> str:
    """Return the totals in words."""
    return f"{report.macs / 1e6:.2f} M MACs, {report.params:,} parameters"


def _input_shape(calops_cfg: dict[str, Any]) -> tuple[int, ...] | None:
    for key in calops_cfg:
        if key not in CALOPS_KEYS:
            raise ConfigError(f"calops_cfg has no key {key!r}", where="calops_cfg", allowed=", ".join(CALOPS_KEYS))
    shape = calops_cfg.get("input_shape")
    if shape is None:
        return None
    if not isinstance(shape, (tuple, list)) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ConfigError(
            "calops_cfg.input_shape is not a shape",
            where="calops_cfg",
            seen=repr(shape),
            allowed="positive whole numbers: (1, 3, 128, 128)",
        )
    return tuple(shape)


def _zeros(inputs: dict[str, torch.Tensor], shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    import torch

    if len(inputs) != 1:
        raise ConfigError(
            "calops_cfg.input_shape is for networks with one input",
            where="calops_cfg",
            seen=", ".join(inputs),
            remedy="give deploy_inputs instead",
        )
    return {name: torch.zeros(shape) for name in inputs}
