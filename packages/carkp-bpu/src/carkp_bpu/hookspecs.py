"""The hook that carkp-bpu adds to core's: operators from outside, on the BPU.

A plugin marks its implementation optional, so that it also loads where carkp-bpu is not installed::

    from carkp_core import hookimpl

    @hookimpl(optionalhook=True)
    def carkp_bpu_operators():
        from carkp_bpu.operator import BpuOperator

        yield BpuOperator("cube", rules="my_package.bpu:RULES", expand="my_package.bpu:expand_cube")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from carkp_core.hookspecs import hookspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from carkp_bpu.operator import BpuOperator


@hookspec
def carkp_bpu_operators() -> Iterable[BpuOperator]:
    """Offer the BPU's side of an operator that the plugin registers with ``carkp_operators``.

    Called when a graph is checked, simulated or compiled for a BPU march. Every plugin's answer is used; an
    operator without an answer is rejected by the checker, one without a machine form is left to the CPU.
    """
