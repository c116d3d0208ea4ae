"""Rules of operators that move data: concat, reshape, transpose. Slices and pads have no limit but a tensor's."""

from __future__ import annotations

import math

from carkp_bpu.checker.rule import Site, rule

Shape = tuple[int, ...]


@rule(
    "concat",
    facts=("shape.concat_inputs",),
    allowed="{0}",
    remedy="concatenate in steps; drop a concat of one tensor",
)
def concat_inputs(site: Site) -> str | None:
    """The number of tensors in a concat is within the march's range."""
    count = len(site.inputs)
    return None if count in site.march.shape.concat_inputs.value else f"{count} inputs"


@rule("concat", facts=("shape.concat_channels",), allowed="at most {0}", remedy="concatenate fewer channels")
def concat_channels(site: Site) -> str | None:
    """The channels of a concat's result are at most the march's limit."""
    channels = site.output.shape[1]
    return f"{channels} channels" if channels > site.march.shape.concat_channels.value else None


def reshape_moves_nothing(before: Shape, after: Shape) -> bool:
    """Whether a reshape keeps the order of elements in memory, where channels lie innermost.

    So dropping or adding dimensions of size 1 is free, flattening a 1x1 map is, and so is merging H and W.
    """
    (channels, area), (new_channels, new_area) = _channels_and_area(before), _channels_and_area(after)
    if channels == new_channels:
        return True
    return 1 in (channels, area) and 1 in (new_channels, new_area)


def transpose_moves_nothing(before: Shape, permutation: tuple[int, ...]) -> bool:
    """Whether a transpose keeps the order of elements in memory, where channels lie innermost."""
    order = [d for d in _storage(len(before)) if before[d] > 1]
    after = [permutation[d] for d in _storage(len(before)) if before[permutation[d]] > 1]
    return order == after


def _storage(rank: int) -> list[int]:
    """Dimensions from the outermost to the innermost in memory."""
    return [0, *range(2, rank), 1] if rank > 1 else [0]


def _channels_and_area(shape: Shape) -> tuple[int, int]:
    return (shape[1] if len(shape) > 1 else 1), math.prod(shape[2:])


@rule(
    "reshape",
    facts=("shape.reshape",),
    allowed=lambda march: None if march.shape.reshape.value else "reshapes that move no data",
    remedy="pool to a 1x1 map before flattening, or move the reshape behind the network",
)
def reshape_moves_data(site: Site) -> str | None:
    """A reshape moves no data, or the march reshapes. Channels lie innermost in memory: dropping dimensions of size 1,
    flattening a 1x1 map and merging H with W are free."""
    if site.march.shape.reshape.value or reshape_moves_nothing(site.inputs[0].shape, site.output.shape):
        return None
    return f"{site.inputs[0].shape} -> {site.output.shape}"


@rule(
    "transpose",
    facts=("shape.transpose",),
    allowed=lambda march: None if march.shape.transpose.value else "transposes that move no data",
    remedy="move the transpose behind the network",
)
def transpose_moves_data(site: Site) -> str | None:
    """A transpose moves no data (only dimensions of size 1 change places), or the march transposes."""
    if site.march.shape.transpose.value or transpose_moves_nothing(site.inputs[0].shape, site.op.permutation):
        return None
    return f"permutation {site.op.permutation} of {site.inputs[0].shape}"
