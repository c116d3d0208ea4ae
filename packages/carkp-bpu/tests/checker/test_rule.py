from __future__ import annotations

import pytest

from carkp_bpu.checker.rule import rule
from carkp_bpu.checker.rules import RULES
from carkp_bpu.march import MARCHES, find_march


def test_a_rules_docstring_is_its_text() -> None:
    @rule("add", facts=("conv.kernel",), allowed="kernel {0}", remedy="shrink it")
    def made(site: object) -> str | None:
        """One line,
        and another."""
        return None

    assert (made.name, made.text) == ("made", "One line, and another.")
    assert made.allowed(find_march("bernoulli2")) == "kernel 1..7"
    assert made.concerns("add")
    assert not made.concerns("mul")


def test_a_limit_that_a_march_lacks_is_no_limit() -> None:
    made = next(r for r in RULES if r.name == "global_avg_pool_size")
    assert made.allowed(find_march("bernoulli2")) == "H x W at most 8192"
    assert made.allowed(find_march("bayes")) is None


@pytest.mark.parametrize("made", RULES, ids=lambda r: r.name)
def test_texts_are_sentences(made) -> None:  # type: ignore[no-untyped-def]
    assert made.text.endswith(".")
    assert not made.remedy.endswith(".")
    for march in MARCHES:
        allowed = made.allowed(march)
        assert allowed is None or (allowed and "Fact(" not in allowed)
