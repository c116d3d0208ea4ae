"""The marches as data tables, and their look-up by name."""

from __future__ import annotations

from carkp_bpu.march.base import Fact, March, Range
from carkp_bpu.march.bayes import BAYES, BAYES_E
from carkp_bpu.march.bernoulli2 import BERNOULLI2
from carkp_bpu.march.nash import NASH_E, NASH_M
from carkp_core.errors import BackendError

MARCHES: tuple[March, ...] = (BERNOULLI2, BAYES, BAYES_E, NASH_E, NASH_M)

__all__ = ["MARCHES", "Fact", "March", "Range", "find_march"]


def find_march(name: str) -> March:
    """The table of a march.

    Raises
    ------
    BackendError
        When carkp-bpu has no such march.
    """
    for march in MARCHES:
        if march.name == name:
            return march
    raise BackendError(
        f"carkp-bpu has no march {name!r}",
        allowed=", ".join(march.name for march in MARCHES),
        remedy="check the spelling of --march",
    )
