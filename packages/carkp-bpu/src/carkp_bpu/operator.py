"""The record by which a plugin brings an operator to the BPU: its rules, its kernel and its cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from carkp_core.catalog import load_object

if TYPE_CHECKING:
    import pluggy

    from carkp_bpu.checker.rule import Rule


@frozen
class BpuOperator:
    """What the BPU backend needs to know of an operator of a plugin. Each path is ``"package.module:object"``.

    Parameters
    ----------
    kind:
        ``Operation.kind`` of the operator.
    rules:
        A tuple of ``carkp_bpu.checker.rule.Rule``; an empty path accepts every node.
    kernel:
        ``kernel(op, inputs) -> array``: the operator on NCHW integer arrays of any batch, bit-equal to
        ``op.execute``. An empty path means ``op.execute`` itself.
    cost:
        ``cost(node, types, march) -> int``: cycles of the vector engine for one frame. An empty path means one
        pass over inputs and output.
    provider:
        The distribution that offers it; filled in by carkp.
    """

    kind: str
    rules: str = ""
    kernel: str = ""
    cost: str = ""
    provider: str = ""

    def load_rules(self) -> tuple[Rule, ...]:
        """Import the rules."""
        return tuple(load_object(self.rules)) if self.rules else ()

    def load_kernel(self) -> Callable[..., Any] | None:
        """Import the kernel, or None for ``op.execute``."""
        return load_object(self.kernel) if self.kernel else None

    def load_cost(self) -> Callable[..., int] | None:
        """Import the cost, or None for one pass over the data."""
        return load_object(self.cost) if self.cost else None


def installed_operators(manager: pluggy.PluginManager) -> tuple[BpuOperator, ...]:
    """The BPU operators of every plugin of a manager, each with its provider's name."""
    from carkp_bpu import hookspecs

    if not hasattr(manager.hook, "carkp_bpu_operators") or not manager.hook.carkp_bpu_operators.has_spec():
        manager.add_hookspecs(hookspecs)
    found: list[BpuOperator] = []
    for implementation in manager.hook.carkp_bpu_operators.get_hookimpls():
        records: Any = implementation.function()
        found += [evolve(record, provider=record.provider or implementation.plugin_name) for record in records]
    return tuple(found)
