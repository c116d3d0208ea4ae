"""Rules of convolutions and fully connected layers (a 1x1 kernel on a 1x1 map)."""

from __future__ import annotations

from carkp_bpu.checker.rule import Site, rule
from carkp_bpu.march.base import March

QMAX = {"int8": 127, "int16": 32767, "int32": 2**31 - 1}


def is_linear(site: Site) -> bool:
    """A 1x1 kernel on a 1x1 map."""
    return site.op.weight.shape[2:] == (1, 1) and site.inputs[0].shape[2:] == (1, 1)


def is_dilated(site: Site) -> bool:
    """A dilation other than 1 in a direction in which the kernel is larger than 1."""
    return any(d > 1 and k > 1 for d, k in zip(site.op.dilation_hw, site.op.weight.shape[2:], strict=True))


@rule("conv2d", facts=("conv.kernel",), allowed="{0} in each direction", remedy="stack smaller kernels")
def conv_kernel(site: Site) -> str | None:
    """A convolution's kernel height and width are within the march's range."""
    kh, kw = site.op.weight.shape[2:]
    limit = site.march.conv.kernel.value
    return None if kh in limit and kw in limit else f"kernel {kh}x{kw}"


def _channel_words(march: March) -> str:
    conv = march.conv
    plain, group, linear = conv.plain_channels.value, conv.group_channels.value, conv.linear_channels.value
    text = f"{plain}" if plain == group else f"{plain} plain, {group} in each group of others"
    text += f", {linear} fully connected" if linear != plain else ""
    return text + (f", {conv.tail_channels.value} out at the tail" if conv.tail_channels.value > plain else "")


@rule(
    "conv2d",
    facts=("conv.plain_channels", "conv.group_channels", "conv.linear_channels", "conv.tail_channels"),
    allowed=_channel_words,
    remedy="make the layer narrower, or split it into parts along the channels",
)
def conv_channels(site: Site) -> str | None:
    """A convolution's channels, in and out and in each group, are at most the march's limit. Plain convolutions
    (one group, no dilation), fully connected layers and the convolution that ends the graph have limits of
    their own."""
    conv, op = site.march.conv, site.op
    into, out = op.weight.shape[1], op.weight.shape[0] // op.groups
    limit = conv.plain_channels.value if op.groups == 1 and not is_dilated(site) else conv.group_channels.value
    limit = conv.linear_channels.value if is_linear(site) else limit
    out_limit = max(limit, conv.tail_channels.value) if site.tail else limit
    if into <= limit and out <= out_limit:
        return None
    return f"{into} -> {out} channels" + (f" in each of {op.groups} groups" if op.groups > 1 else "")


@rule(
    "conv2d",
    facts=("conv.linear_output_blocks",),
    allowed="{0} blocks of 4 channels",
    remedy="make the layer narrower, or give it an int32 output at the tail",
)
def conv_linear_output(site: Site) -> str | None:
    """A fully connected layer's int8 output, in blocks of four channels, is at most the march's limit."""
    limit = site.march.conv.linear_output_blocks.value
    if limit is None or not is_linear(site) or site.output.dtype != "int8":
        return None
    blocks = -(-site.op.weight.shape[0] // 4)
    return f"{blocks} blocks ({site.op.weight.shape[0]} channels)" if blocks > limit else None


@rule(
    "conv2d",
    facts=("conv.kernel_volume",),
    allowed="at most {0}",
    remedy="use a smaller kernel, fewer input channels or more groups",
)
def conv_kernel_volume(site: Site) -> str | None:
    """Kernel height x width x input channels of a group is at most the march's limit. A fully connected layer is
    bound by its channels alone."""
    _, into, kh, kw = site.op.weight.shape
    exceeds = into * kh * kw > site.march.conv.kernel_volume.value and not is_linear(site)
    return f"{kh} x {kw} x {into} = {kh * kw * into}" if exceeds else None


@rule("conv2d", facts=("conv.stride",), allowed="{0}", remedy="use a smaller stride, or pool")
def conv_stride(site: Site) -> str | None:
    """A convolution's strides are within the march's range."""
    limit = site.march.conv.stride.value
    return None if all(s in limit for s in site.op.stride_hw) else f"stride {_pair(site.op.stride_hw)}"


@rule(
    "conv2d",
    facts=("conv.add_strides",),
    allowed="{0}",
    remedy="use stride 1 or 2 in the last convolution before the add",
)
def conv_add_stride(site: Site) -> str | None:
    """A convolution with a residual add fused into it has a stride of 1 or 2."""
    strides = site.march.conv.add_strides.value
    if site.op.residual is None or all(s in strides for s in site.op.stride_hw):
        return None
    return f"stride {_pair(site.op.stride_hw)} with a fused add"


def _dilation_words(march: March) -> str:
    text = str(march.conv.dilation.value)
    text += ", a power of two" if march.conv.dilation_power_of_two.value else ""
    return text + (", height at most width" if march.conv.dilation_h_at_most_w.value else "")


@rule(
    "conv2d",
    facts=("conv.dilation", "conv.dilation_power_of_two", "conv.dilation_h_at_most_w"),
    allowed=_dilation_words,
    remedy="choose another dilation, or a larger kernel without one",
)
def conv_dilation(site: Site) -> str | None:
    """A convolution's dilations are within the march's range; where the march asks for it, powers of two, and not
    larger along H than along W."""
    conv, (dh, dw) = site.march.conv, site.op.dilation_hw
    fits = dh in conv.dilation.value and dw in conv.dilation.value
    fits &= not conv.dilation_power_of_two.value or not (dh & (dh - 1) or dw & (dw - 1))
    fits &= not conv.dilation_h_at_most_w.value or dh <= dw
    return None if fits or not is_dilated(site) else f"dilation {_pair((dh, dw))}"


@rule(
    "conv2d",
    facts=("conv.dilated_stride",),
    allowed=lambda march: "stride divides dilation" if march.conv.dilated_stride.value == "divides" else "stride 1",
    remedy="move the stride to a convolution without dilation",
)
def conv_dilated_stride(site: Site) -> str | None:
    """A dilated convolution's stride is 1, or divides the dilation where the march allows it."""
    if not is_dilated(site):
        return None
    by_division = site.march.conv.dilated_stride.value == "divides"
    pairs = zip(site.op.dilation_hw, site.op.stride_hw, strict=True)
    fits = all(d % s == 0 if by_division else s == 1 for d, s in pairs)
    return None if fits else f"stride {_pair(site.op.stride_hw)} with dilation {_pair(site.op.dilation_hw)}"


@rule(
    "conv2d",
    facts=("conv.dilated_divides_input",),
    allowed=lambda march: (
        "H and W divisible by the dilation, int8 output" if march.conv.dilated_divides_input.value else None
    ),
    remedy="pad the map to a multiple of the dilation, and keep the output int8",
)
def conv_dilated_input(site: Site) -> str | None:
    """A dilated convolution's input height and width divide by the dilation, and its output is int8."""
    if not site.march.conv.dilated_divides_input.value or not is_dilated(site):
        return None
    height, width = site.inputs[0].shape[2:]
    if height % site.op.dilation_hw[0] or width % site.op.dilation_hw[1]:
        return f"map {height}x{width} with dilation {_pair(site.op.dilation_hw)}"
    return None if site.output.dtype == "int8" else f"{site.output.dtype} output"


@rule("conv2d", facts=("conv.padding",), allowed="{0}", remedy="pad with an operator of its own")
def conv_padding(site: Site) -> str | None:
    """A convolution's padding is within the march's range on every side."""
    limit = site.march.conv.padding.value
    return None if all(p in limit for p in site.op.padding_tlbr) else f"padding {site.op.padding_tlbr}"


@rule(
    "conv2d",
    facts=("conv.relu6",),
    allowed=lambda march: None if march.conv.relu6.value else "ReLU",
    remedy="use ReLU, or calibrate the output's scale to at most 6 / 127, where the clamp is the type's own",
)
def conv_relu6(site: Site) -> str | None:
    """An activation fused into a convolution ends at the type's maximum, as ReLU does; ReLU6, which ends below it,
    is fused by marches that say so."""
    ends_below = site.op.hi < QMAX[site.output.dtype] and not site.march.conv.relu6.value
    return f"a fused clamp to {site.op.hi}" if ends_below else None


@rule("conv2d", facts=("conv.input_dtypes",), allowed="{0}", remedy="quantize the input to one of these types")
def conv_input_type(site: Site) -> str | None:
    """A convolution's inputs have one of the march's types."""
    allowed = site.march.conv.input_dtypes.value
    pairs = zip(site.inputs, site.off_npu, strict=True)
    return next((f"{t.dtype} input" for t, off in pairs if t.dtype not in allowed and not off), None)


@rule("conv2d", facts=("conv.output_dtypes",), allowed="{0}", remedy="give the layer another output type")
def conv_output_type(site: Site) -> str | None:
    """A convolution's output has one of the march's types."""
    return None if site.output.dtype in site.march.conv.output_dtypes.value else f"{site.output.dtype} output"


def _pair(values: tuple[int, int]) -> str:
    return f"{values[0]}x{values[1]}"
