"""What a rule is, and what it is asked about."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Literal

from attrs import frozen

from carkp_bpu.march.base import Fact, March
from carkp_core.ir.graph import Node, TensorType

#: What becomes of a node that breaks a rule: the runtime executes it on the CPU, or nothing can.
Otherwise = Literal["CPU", "rejected"]


@frozen
class Site:
    """A node where a rule looks at it."""

    node: Node
    #: The input tensors' types, in the node's order.
    inputs: tuple[TensorType, ...]
    #: For each input: it is a constant; it was produced off the NPU.
    constant: tuple[bool, ...]
    off_npu: tuple[bool, ...]
    #: The node is an output of the graph that no other node reads.
    tail: bool
    march: March

    @property
    def op(self) -> Any:
        return self.node.op

    @property
    def output(self) -> TensorType:
        return self.node.type


@frozen
class Rule:
    """A limit of the BPU. ``check`` returns what was seen at a node that breaks it, else None."""

    name: str
    #: What is demanded, in words: the docstring of the function. The operator tables print it.
    text: str
    #: Operator kinds it concerns; ("*",) is every node.
    kinds: tuple[str, ...]
    check: Callable[[Site], str | None]
    #: What a march allows, in a few words; None where the march has no such limit.
    allowed: Callable[[March], str | None]
    #: Paths of the facts that it reads, such as "conv.kernel".
    facts: tuple[str, ...]
    remedy: str
    otherwise: Otherwise

    def concerns(self, kind: str) -> bool:
        """Whether nodes of a kind are asked."""
        return self.kinds == ("*",) or kind in self.kinds

    def limits(self, march: March) -> tuple[Fact[Any], ...]:
        """The march's facts behind the rule."""
        return tuple(attrgetter(path)(march) for path in self.facts)


def rule(
    *kinds: str,
    facts: tuple[str, ...] = (),
    allowed: str | Callable[[March], str | None],
    remedy: str,
    otherwise: Otherwise = "CPU",
) -> Callable[[Callable[[Site], str | None]], Rule]:
    """Make a rule of a function ``(site) -> what was seen, or None``; its docstring is the rule in words.

    It registers nothing: a rule counts when it stands in the tuple ``rules.RULES`` or is offered by a plugin's
    ``BpuOperator``. ``allowed`` is a text, with ``{0}``, ``{1}`` ... standing for the facts' values, or a function
    of the march.
    """

    def text_of(march: March) -> str | None:
        if not isinstance(allowed, str):
            return allowed(march)
        values = [attrgetter(path)(march).value for path in facts]
        return None if facts and all(value is None for value in values) else allowed.format(*map(_words, values))

    def wrap(function: Callable[[Site], str | None]) -> Rule:
        text = " ".join((function.__doc__ or "").split())
        assert text, f"rule {function.__name__} has no docstring"
        return Rule(function.__name__, text, kinds, function, text_of, facts, remedy, otherwise)

    return wrap


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
