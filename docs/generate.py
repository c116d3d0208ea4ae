"""Write what is generated in the docs.

``hooks.md`` comes from the hook specifications, ``operators.md`` from the checker's rules, ``isa.md`` from the
instruction set, and the tables of ``bpu.md``, each between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``, from the
marches.

``python docs/generate.py`` writes; with ``--check`` it shows what is stale as a diff and exits with status 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import click
from bpu_tables import isa_page, marches_table, measurements_table
from hooks_page import hooks_page

from carkp_bpu.checker.docs import operators_page

DOCS = Path(__file__).parent

PAGES: dict[str, Callable[[], str]] = {"hooks.md": hooks_page, "operators.md": operators_page, "isa.md": isa_page}
TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "bpu.md": {"marches": marches_table, "measurements": measurements_table}
}


def wanted(name: str, present: str) -> str:
    """What a page should hold, from what it holds."""
    if name in PAGES:
        return PAGES[name]()
    for table, make in TABLES[name].items():
        begin, end = f"<!-- begin {table} -->", f"<!-- end {table} -->"
        before, found, rest = present.partition(begin)
        _, closed, after = rest.partition(end)
        present = f"{before}{begin}\n\n{make()}\n\n{end}{after}"
        if not (found and closed):
            raise click.ClickException(f"docs/{name} has no place for the table {table!r}: {begin} ... {end}")
    return present


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with status 1 when a page is stale.")
@click.pass_context
def main(ctx: click.Context, check: bool) -> None:
    """Write the generated pages and tables."""
    stale = []
    for name in (*PAGES, *TABLES):
        path = DOCS / name
        present = path.read_text(encoding="utf-8") if path.exists() else ""
        text = wanted(name, present)
        if present == text:
            continue
        stale.append(name)
        if check:
            lines = difflib.unified_diff(present.splitlines(), text.splitlines(), f"docs/{name}", "wanted", lineterm="")
            click.echo("\n".join(lines))
        else:
            path.write_text(text, encoding="utf-8")
            click.echo(f"wrote docs/{name}")
    if check and stale:
        click.echo(f"stale: {', '.join(stale)}; run `python docs/generate.py`", err=True)
        ctx.exit(1)


if __name__ == "__main__":
    main()
