"""Rules of pooling. A window as large as the map, without padding, is global pooling."""

from __future__ import annotations

from collections.abc import Callable

from carkp_bpu.checker.rule import Site, rule
from carkp_bpu.march.base import March


def is_global(site: Site) -> bool:
    """The window is the whole map."""
    return site.op.kernel_hw == site.inputs[0].shape[2:] and not any(site.op.padding_tlbr)


def _window_words(prefix: str) -> Callable[[March], str]:
    def words(march: March) -> str:
        kernel, stride, padding = (getattr(march.pool, f"{prefix}_{x}").value for x in ("kernel", "stride", "padding"))
        return f"window {kernel}, stride {stride}, padding {padding}"

    return words


def _outside(site: Site, prefix: str) -> str | None:
    limits, op = site.march.pool, site.op
    kernel, stride, padding = (getattr(limits, f"{prefix}_{x}").value for x in ("kernel", "stride", "padding"))
    fits = all(k in kernel for k in op.kernel_hw) and all(s in stride for s in op.stride_hw)
    fits &= all(p in padding for p in op.padding_tlbr)
    if fits or is_global(site):
        return None
    return f"window {_pair(op.kernel_hw)}, stride {_pair(op.stride_hw)}, padding {op.padding_tlbr}"


@rule(
    "max_pool",
    facts=("pool.max_kernel", "pool.max_stride", "pool.max_padding"),
    allowed=_window_words("max"),
    remedy="use a smaller window, twice if need be",
)
def max_pool_window(site: Site) -> str | None:
    """Max pooling's window, stride and padding are within the march's ranges, unless the pooling is global."""
    return _outside(site, "max")


@rule(
    "max_pool",
    facts=("pool.max_dilation",),
    allowed=lambda march: None if march.pool.max_dilation.value else "dilation 1",
    remedy="use max pooling without dilation",
)
def max_pool_dilation(site: Site) -> str | None:
    """Max pooling has no dilation."""
    dilated = site.op.dilation_hw != (1, 1) and not site.march.pool.max_dilation.value
    return f"dilation {_pair(site.op.dilation_hw)}" if dilated else None


@rule("max_pool", facts=("pool.global_max_side",), allowed="H and W at most {0}", remedy="pool in two steps")
def global_max_pool_size(site: Site) -> str | None:
    """Global max pooling works on maps whose height and width are at most the march's limit."""
    height, width = site.inputs[0].shape[2:]
    exceeds = is_global(site) and max(height, width) > site.march.pool.global_max_side.value
    return f"map {height}x{width}" if exceeds else None


@rule(
    "avg_pool",
    facts=("pool.avg_kernel", "pool.avg_stride", "pool.avg_padding"),
    allowed=_window_words("avg"),
    remedy="use a smaller window, twice if need be, or global pooling",
)
def avg_pool_window(site: Site) -> str | None:
    """Average pooling's window, stride and padding are within the march's ranges, unless the pooling is global."""
    return _outside(site, "avg")


@rule(
    "avg_pool",
    allowed="count_include_pad=True, ceil_mode=False, or no padding",
    remedy="set count_include_pad=True and ceil_mode=False",
)
def avg_pool_divisor(site: Site) -> str | None:
    """Average pooling divides every window by the same count: padded positions count, and no window reaches past
    the padding."""
    op, (height, width) = site.op, site.inputs[0].shape[2:]
    if any(op.padding_tlbr) and not op.count_include_pad:
        return f"count_include_pad=False with padding {op.padding_tlbr}"
    ends = [(o - 1) * s + k for o, s, k in zip(site.output.shape[2:], op.stride_hw, op.kernel_hw, strict=True)]
    counted = op.counted_hw if op.count_include_pad else (height, width)
    return "ceil_mode=True with partial windows" if ends[0] > counted[0] or ends[1] > counted[1] else None


@rule("avg_pool", facts=("pool.global_avg_area",), allowed="H x W at most {0}", remedy="pool in two steps")
def global_avg_pool_size(site: Site) -> str | None:
    """Global average pooling works on maps whose area is at most the march's limit."""
    limit = site.march.pool.global_avg_area.value
    height, width = site.inputs[0].shape[2:]
    exceeds = limit is not None and is_global(site) and height * width > limit
    return f"map {height}x{width}" if exceeds else None


def _type_words(march: March) -> str:
    largest, average = ", ".join(march.pool.max_dtypes.value), ", ".join(march.pool.avg_dtypes.value)
    return largest if largest == average else f"max: {largest}; average: {average}"


@rule(
    "max_pool",
    "avg_pool",
    facts=("pool.max_dtypes", "pool.avg_dtypes"),
    allowed=_type_words,
    remedy="quantize its input to one of these types",
)
def pool_type(site: Site) -> str | None:
    """A pooling's input and output have one of the march's types."""
    allowed = site.march.pool.max_dtypes if site.op.kind == "max_pool" else site.march.pool.avg_dtypes
    into = site.inputs[0].dtype
    if into not in allowed.value and not site.off_npu[0]:
        return f"{into} input"
    return None if site.output.dtype in allowed.value else f"{site.output.dtype} output"


def _pair(values: tuple[int, int]) -> str:
    return f"{values[0]}x{values[1]}"
