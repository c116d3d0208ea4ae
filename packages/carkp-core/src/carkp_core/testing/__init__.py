"""Checks for authors of plugins: each holds one part to what carkp asks of it, and explains what fails and why.

::

    from carkp_core.testing import check_backbone

    def test_backbone():
        check_backbone(MyNet(), marches=("bayes",))

A check raises `CheckFailed` with every finding at once: what failed, why it matters, what to do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from carkp_core.testing.findings import CheckFailed, Finding

if TYPE_CHECKING:
    from carkp_core.testing.backbone import check_backbone
    from carkp_core.testing.backend import check_backend
    from carkp_core.testing.dataset import check_dataset
    from carkp_core.testing.operator import check_operator

__all__ = ["CheckFailed", "Finding", "check_backbone", "check_backend", "check_dataset", "check_operator"]


def __getattr__(name: str) -> Any:
    """The checks, imported when they are used: torch takes its time."""
    if name.startswith("check_") and name in __all__:
        return getattr(import_module(f"carkp_core.testing.{name.removeprefix('check_')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
