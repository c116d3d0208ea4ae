"""What this package offers to carkp. Everything is named here and imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from carkp_core import hookimpl
from carkp_core.catalog import Component


@hookimpl
def carkp_components() -> Iterator[Component]:
    yield Component("dataset", "CocoKeypoints", "carkp_coco_example.data:CocoKeypoints")


@hookimpl
def carkp_configs() -> Mapping[str, str]:
    return {"coco_keypoints": str(Path(__file__).parent / "configs" / "coco_keypoints.py")}
