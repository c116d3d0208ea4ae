"""The record by which an operator is registered; what it loads is described in ``quant/operators.py``."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from carkp_core.catalog import load_object


@frozen
class Operator:
    """An operator: ``load`` is ``"package.module:object"``, imported when a graph is quantized or read."""

    name: str
    load: str
    provider: str = ""

    def resolve(self) -> Any:
        """Import the operator's definition."""
        return load_object(self.load)
