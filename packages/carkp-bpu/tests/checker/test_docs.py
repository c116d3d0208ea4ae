from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from carkp_bpu.checker.docs import main, operators_page
from carkp_bpu.checker.rules import RULES
from carkp_bpu.march import MARCHES

PAGE = Path(__file__).parents[4] / "docs" / "operators.md"


def test_the_page_names_every_rule_and_march() -> None:
    page = operators_page()
    assert all(f"### `{rule.name}`\n\n{rule.text}\n" in page for rule in RULES)
    assert all(f"**{march.name}**" in page for march in MARCHES)
    assert "| bernoulli2 | 1..7 in each direction |" in page


def test_the_page_in_the_repository_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == operators_page()


def test_check_names_a_stale_page(tmp_path: Path) -> None:
    path = tmp_path / "operators.md"
    stale = CliRunner().invoke(main, [str(path), "--check"])
    assert (stale.exit_code, "is stale" in stale.output) == (1, True)
    assert CliRunner().invoke(main, [str(path)]).exit_code == 0
    assert CliRunner().invoke(main, [str(path), "--check"]).exit_code == 0
