"""``docs/operators.md``, generated from the rules and the march tables.

``python -m carkp_bpu.checker.docs docs/operators.md`` writes it; with ``--check`` it only says whether the file is
what would be written (exit status 1 when not).
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import click

from carkp_bpu.checker.rule import Rule
from carkp_bpu.checker.rules import RULES
from carkp_bpu.march import MARCHES
from carkp_bpu.march.base import March

TITLES = {
    "*": "Every tensor",
    "conv2d": "Convolution, fully connected",
    "conv_transpose2d": "Transposed convolution",
    "max_pool": "Pooling",
    "avg_pool": "Pooling",
    "add": "Add and mul",
    "mul": "Add and mul",
    "table": "Non-linear functions (tables)",
    "concat": "Concat",
    "reshape": "Reshape and transpose",
    "transpose": "Reshape and transpose",
    "resize": "Resize",
}

INTRODUCTION = """\
# Operators on the BPU

This page is generated from the checker's rules (`nox -s docs`); do not edit it. `carkp model-checker` reads the same
tables. A node that breaks a rule is left to the CPU or rejected, as each rule says; both are findings.

The rules see the graph as carkp has normalised it: a mean is a mean plus a reshape, a fully connected layer is a 1x1
convolution, any scalar function of one int8 tensor is a table, a lone batch norm is a depthwise 1x1 convolution, a
ReLU is the clamp of the node before it. Slices, pads, clamps, rescales and constants have no limit but that of their
tensors.

`*` marks a value that is not published and was assumed by carkp; `-` means no such limit. Sources are at the end.
"""


def operators_page() -> str:
    """The whole page as Markdown."""
    parts = [INTRODUCTION]
    for title, rules in groupby(RULES, key=lambda rule: TITLES[rule.kinds[0]]):
        parts += [f"## {title}\n", *(_section(rule) for rule in rules)]
    parts += ["## Sources\n", *(_sources(march) for march in MARCHES)]
    return "\n".join(parts).rstrip() + "\n"


def _section(rule: Rule) -> str:
    outcome = "CPU" if rule.otherwise == "CPU" else "rejected"
    if rule.name == "integer_form":
        outcome = "CPU where the runtime has the operator, else rejected"
    rows: dict[str, list[str]] = {}
    for march in MARCHES:
        rows.setdefault(_cell(rule, march), []).append(march.name)
    lines = [f"### `{rule.name}`\n", f"{rule.text}\n", "| march | allowed |", "| --- | --- |"]
    lines += [f"| {', '.join(names)} | {cell} |" for cell, names in rows.items()]
    lines += ["", f"Otherwise: {outcome}. Remedy: {rule.remedy}.\n"]
    return "\n".join(lines)


def _cell(rule: Rule, march: March) -> str:
    allowed = rule.allowed(march)
    if allowed is None:
        return "-"
    return allowed + (" *" if any(fact.assumption for fact in rule.limits(march)) else "")


def _sources(march: March) -> str:
    sources: dict[str, list[str]] = {}
    for rule in RULES:
        for path, fact in zip(rule.facts, rule.limits(march), strict=True):
            label = f"{fact.source}{' (assumed)' if fact.assumption else ''}"
            sources.setdefault(label, []).append(path.split(".", 1)[0])
    lines = [f"**{march.name}** ({march.chips})", ""]
    lines += [f"- {source}: {', '.join(dict.fromkeys(groups))}" for source, groups in sources.items()]
    return "\n".join([*lines, *([f"- {march.note}"] if march.note else []), ""])


@click.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--check", "check_only", is_flag=True, help="Only compare.")
@click.pass_context
def main(ctx: click.Context, path: Path, check_only: bool) -> None:
    """Write the operator tables to PATH."""
    page = operators_page()
    if not check_only:
        path.write_text(page, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != page:
        click.echo(f"{path} is stale: run `python -m carkp_bpu.checker.docs {path}`", err=True)
        ctx.exit(1)


if __name__ == "__main__":
    main()
