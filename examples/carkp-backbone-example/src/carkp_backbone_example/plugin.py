"""What this package offers to carkp. Everything is named here and imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from carkp_core import hookimpl
from carkp_core.catalog import Component
from carkp_core.operator import Operator

if TYPE_CHECKING:
    from carkp_bpu.operator import BpuOperator

PACKAGE = "carkp_backbone_example"


@hookimpl
def carkp_components() -> Iterator[Component]:
    yield Component("backbone", "FunnelNet", f"{PACKAGE}.funnel_net:FunnelNet")


@hookimpl
def carkp_configs() -> Mapping[str, str]:
    return {"funnel_keypoints": str(Path(__file__).parent / "configs" / "funnel_keypoints.py")}


@hookimpl
def carkp_operators() -> Iterator[Operator]:
    yield Operator("maximum", f"{PACKAGE}.maximum:MAXIMUM")


@hookimpl(optionalhook=True)  # optional: the package also works where carkp-bpu is not installed
def carkp_bpu_operators() -> Iterator[BpuOperator]:
    from carkp_bpu.operator import BpuOperator

    yield BpuOperator(
        "maximum", rules=f"{PACKAGE}.bpu:RULES", kernel=f"{PACKAGE}.bpu:kernel", expand=f"{PACKAGE}.bpu:expand"
    )
