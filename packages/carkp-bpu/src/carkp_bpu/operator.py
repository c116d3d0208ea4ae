"""The record by which a plugin brings an operator to the BPU: its rules, its kernel and its machine form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pluggy
from attrs import frozen

from carkp_bpu import hookspecs
from carkp_core.catalog import load_object
from carkp_core.errors import PluginError

if TYPE_CHECKING:
    from carkp_bpu.checker.rule import Rule
    from carkp_core.ir.graph import Node
    from carkp_core.plugins import PluginManager


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
    expand:
        ``expand(node, types) -> nodes``: the operator in the machine's own operators, bit-equal to ``op.execute``; see
        `carkp_bpu.expand`. Its cost is that of these nodes' instructions. Without one the checker leaves the node
        to the CPU.
    provider:
        The distribution that offers it; filled in by carkp.
    """

    kind: str
    rules: str = ""
    kernel: str = ""
    expand: str = ""
    provider: str = ""

    def load_rules(self) -> tuple[Rule, ...]:
        """Import the rules."""
        return tuple(load_object(self.rules)) if self.rules else ()

    def load_kernel(self) -> Callable[..., Any] | None:
        """Import the kernel, or None for ``op.execute``."""
        return load_object(self.kernel) if self.kernel else None

    def load_expand(self) -> Callable[..., Iterable[Node]]:
        """Import the function that writes the operator in the machine's own."""
        return load_object(self.expand)  # type: ignore[no-any-return]


def installed_operators(manager: PluginManager) -> tuple[BpuOperator, ...]:
    """The BPU operators of every installed plugin, each with its provider's name.

    Raises
    ------
    PluginError
        When a plugin's implementation of the hook has another signature.
    """
    if not hasattr(manager.hook, "carkp_bpu_operators"):
        return ()
    if not manager.hook.carkp_bpu_operators.has_spec():
        try:
            manager.add_hookspecs(hookspecs)
        except pluggy.PluginValidationError as error:
            raise PluginError(
                "a plugin's carkp_bpu_operators has another signature",
                seen=str(error),
                allowed="no arguments",
                remedy="update the package that offers it",
            ) from error
    collect: Any = manager.collect
    found: tuple[BpuOperator, ...] = collect("carkp_bpu_operators", BpuOperator)
    return found
