"""Rules of add, mul and tables."""

from __future__ import annotations

import math

from carkp_bpu.checker.rule import Site, rule
from carkp_bpu.march.base import Fact, March


@rule(
    "add",
    "mul",
    facts=("elementwise.ranks",),
    allowed="{0} dimensions",
    remedy="reshape the operands to four dimensions",
)
def elementwise_rank(site: Site) -> str | None:
    """The result of an add or a mul has a number of dimensions that the march's element-wise engine takes."""
    rank = len(site.output.shape)
    return None if rank in site.march.elementwise.ranks.value else f"{rank} dimensions"


@rule("add", "mul", facts=("elementwise.channels",), allowed="at most {0}", remedy="split along the channels")
def elementwise_channels(site: Site) -> str | None:
    """The channels of an add or a mul are at most the march's limit."""
    limit, shape = site.march.elementwise.channels.value, site.output.shape
    return f"{shape[1]} channels" if len(shape) > 1 and shape[1] > limit else None


def _broadcast_words(fact: Fact[tuple[str, ...]]) -> str:
    words = {"per_channel": "one value a channel", "scalar": "one value", "any": "any but along the batch"}
    return "the same shape, or one operand broadcast: " + ", ".join(words[pattern] for pattern in fact.value)


def _odd_operand(site: Site, patterns: tuple[str, ...]) -> str | None:
    full = site.output.shape
    for type_ in site.inputs:
        shape = (1,) * (len(full) - len(type_.shape)) + type_.shape
        per_channel = shape[:2] == full[:2] and math.prod(shape[2:]) == 1
        scalar = math.prod(shape) == 1
        fits = shape == full or ("per_channel" in patterns and per_channel) or ("scalar" in patterns and scalar)
        if not fits and "any" not in patterns:
            return f"{type_.shape} against {full}"
    return None


@rule(
    "add",
    facts=("elementwise.add_broadcast",),
    allowed=lambda march: _broadcast_words(march.elementwise.add_broadcast),
    remedy="expand the smaller operand",
)
def add_broadcast(site: Site) -> str | None:
    """The operands of an add have the result's shape, or one of the shapes that the march broadcasts."""
    return _odd_operand(site, site.march.elementwise.add_broadcast.value)


@rule(
    "mul",
    facts=("elementwise.mul_broadcast",),
    allowed=lambda march: _broadcast_words(march.elementwise.mul_broadcast),
    remedy="expand the smaller operand",
)
def mul_broadcast(site: Site) -> str | None:
    """The operands of a mul have the result's shape, or one of the shapes that the march broadcasts."""
    return _odd_operand(site, site.march.elementwise.mul_broadcast.value)


@rule(
    "add",
    "mul",
    facts=("elementwise.add_constants", "elementwise.mul_constants"),
    allowed="add: at most {0}, mul: at most {1}",
    remedy="fold the constant into the convolution before it",
)
def constant_operands(site: Site) -> str | None:
    """An add or a mul has at most as many constant operands as the march allows."""
    limits = site.march.elementwise
    limit = (limits.add_constants if site.op.kind == "add" else limits.mul_constants).value
    count = sum(site.constant)
    return f"{site.op.kind} with {count} constant operand{'s' * (count > 1)}" if count > limit else None


@rule(
    "table",
    facts=("elementwise.cpu_functions",),
    allowed=lambda march: (
        f"all but {', '.join(march.elementwise.cpu_functions.value)}" if march.elementwise.cpu_functions.value else None
    ),
    remedy="use ReLU, leaky ReLU, sigmoid or tanh",
)
def table_function(site: Site) -> str | None:
    """A non-linear function is one that the march looks up in a table."""
    on_cpu = site.op.function in site.march.elementwise.cpu_functions.value
    return f"function {site.op.function}" if on_cpu else None


def _table_words(march: March) -> str | None:
    limits = march.elementwise
    if limits.table_elements.value is None:
        return None
    return f"C x H x W at most {limits.table_elements.value}, except {', '.join(limits.unlimited_functions.value)}"


@rule(
    "table",
    facts=("elementwise.table_elements", "elementwise.unlimited_functions"),
    allowed=_table_words,
    remedy="use ReLU or leaky ReLU there, or apply the function to a smaller map",
)
def table_size(site: Site) -> str | None:
    """A table function's tensor has at most the march's number of elements; some functions have no such limit, and
    the sigmoid has one of its own."""
    limits = site.march.elementwise
    if site.op.function in (*limits.unlimited_functions.value, "sigmoid") or limits.table_elements.value is None:
        return None
    elements = math.prod(site.output.shape[1:])
    return f"{elements} elements of {site.op.function or 'a table'}" if elements > limits.table_elements.value else None


@rule(
    "table",
    facts=("elementwise.sigmoid_aligned_elements",),
    allowed="at most {0} elements once W is aligned to 8 and C to 4, or C to 32",
    remedy="apply the sigmoid behind the network, or to a smaller map",
)
def sigmoid_size(site: Site) -> str | None:
    """A sigmoid's tensor has at most the march's number of elements in the smaller of the two aligned layouts: W to 8
    and C to 4, or C to 32."""
    limit = site.march.elementwise.sigmoid_aligned_elements.value
    if limit is None or site.op.function != "sigmoid":
        return None
    channels, height, width = ((*site.output.shape[1:], 1, 1))[:3]
    by_width = _up(width, 8) * _up(channels, 4) * height
    by_channel = width * _up(channels, 32) * height
    return f"{min(by_width, by_channel)} aligned elements" if min(by_width, by_channel) > limit else None


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
