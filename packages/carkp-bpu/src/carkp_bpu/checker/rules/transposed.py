"""Rules of transposed convolutions."""

from __future__ import annotations

from carkp_bpu.checker.rule import Site, rule
from carkp_bpu.march.base import March

KIND = "conv_transpose2d"


def _kernel_words(march: March) -> str:
    extra = ", at least the stride" if march.conv_transpose.kernel_at_least_stride.value else ""
    return f"{march.conv_transpose.kernel.value} in each direction{extra}"


@rule(
    KIND,
    facts=("conv_transpose.kernel", "conv_transpose.kernel_at_least_stride"),
    allowed=_kernel_words,
    remedy="use a 4x4 kernel with stride 2, or resize and convolve",
)
def conv_transpose_kernel(site: Site) -> str | None:
    """A transposed convolution's kernel height and width are within the march's range and, where the march asks for
    it, at least the stride."""
    limits, kernel = site.march.conv_transpose, site.op.weight.shape[2:]
    fits = all(k in limits.kernel.value for k in kernel)
    if limits.kernel_at_least_stride.value:
        fits &= all(k >= s for k, s in zip(kernel, site.op.stride_hw, strict=True))
    return None if fits else f"kernel {_pair(kernel)}, stride {_pair(site.op.stride_hw)}"


@rule(KIND, facts=("conv_transpose.channels",), allowed="at most {0}", remedy="make the layer narrower")
def conv_transpose_channels(site: Site) -> str | None:
    """A transposed convolution's channels, in and out, are at most the march's limit."""
    into, out = site.op.weight.shape[0], site.op.weight.shape[1] * site.op.groups
    return f"{into} -> {out} channels" if max(into, out) > site.march.conv_transpose.channels.value else None


@rule(KIND, facts=("conv_transpose.kernel_volume",), allowed="at most {0}", remedy="use a smaller kernel")
def conv_transpose_kernel_volume(site: Site) -> str | None:
    """A transposed convolution's kernel height x width x input channels of a group is at most the march's limit."""
    limit = site.march.conv_transpose.kernel_volume.value
    channels, _, kh, kw = site.op.weight.shape
    volume = kh * kw * channels // site.op.groups
    return f"{volume}" if limit is not None and volume > limit else None


def _stride_words(march: March) -> str:
    strides = march.conv_transpose.strides.value
    text = f"{strides[0]}..{strides[-1]}, not 1 in both directions" if 1 in strides else ", ".join(map(str, strides))
    return text + (", height at most width" if march.conv_transpose.stride_h_at_most_w.value else "")


@rule(
    KIND,
    facts=("conv_transpose.strides", "conv_transpose.stride_h_at_most_w"),
    allowed=_stride_words,
    remedy="use stride 2 in both directions, or a plain convolution for stride 1",
)
def conv_transpose_stride(site: Site) -> str | None:
    """A transposed convolution's strides are among the march's, not both 1, and where the march asks for it not
    larger along H than along W."""
    limits, (sh, sw) = site.march.conv_transpose, site.op.stride_hw
    fits = sh in limits.strides.value and sw in limits.strides.value and (sh, sw) != (1, 1)
    fits &= not limits.stride_h_at_most_w.value or sh <= sw
    return None if fits else f"stride {_pair((sh, sw))}"


def _most_padding(rule_name: str, kernel: int, stride: int) -> int:
    if rule_name == "half":
        return (kernel - 1) // 2
    return (kernel - 1) // stride if stride % 2 else kernel // stride


@rule(
    KIND,
    facts=("conv_transpose.padding_rule",),
    allowed=lambda march: (
        "at most (kernel - 1) / 2"
        if march.conv_transpose.padding_rule.value == "half"
        else "at most kernel / stride, for odd strides less"
    ),
    remedy="use a smaller padding and slice the output",
)
def conv_transpose_padding(site: Site) -> str | None:
    """A transposed convolution's padding is at most the march's share of the kernel on every side."""
    top, left, bottom, right = site.op.padding_tlbr
    name = site.march.conv_transpose.padding_rule.value
    (kh, kw), (sh, sw) = site.op.weight.shape[2:], site.op.stride_hw
    fits = max(top, bottom) <= _most_padding(name, kh, sh) and max(left, right) <= _most_padding(name, kw, sw)
    fits &= min(site.op.padding_tlbr) >= 0
    return None if fits else f"padding {site.op.padding_tlbr}, kernel {kh}x{kw}, stride {sh}x{sw}"


@rule(KIND, facts=("conv_transpose.output_padding",), allowed="{0}", remedy="choose kernel and padding that need none")
def conv_transpose_output_padding(site: Site) -> str | None:
    """A transposed convolution's output padding is within the march's range."""
    limit = site.march.conv_transpose.output_padding.value
    fits = all(p in limit for p in site.op.output_padding_hw)
    return None if fits else f"output padding {_pair(site.op.output_padding_hw)}"


@rule(KIND, facts=("conv_transpose.dtypes",), allowed="{0}", remedy="quantize its input and output to int8")
def conv_transpose_type(site: Site) -> str | None:
    """A transposed convolution's input and output have one of the march's types."""
    allowed = site.march.conv_transpose.dtypes.value
    into = site.inputs[0].dtype
    if into not in allowed and not site.off_npu[0]:
        return f"{into} input"
    return None if site.output.dtype in allowed else f"{site.output.dtype} output"


def _pair(values: tuple[int, ...]) -> str:
    return f"{values[0]}x{values[1]}"
