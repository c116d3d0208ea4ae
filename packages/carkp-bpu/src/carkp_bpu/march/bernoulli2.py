"""bernoulli2: X3 and J3."""

from __future__ import annotations

from carkp_bpu.march.base import (
    ConvLimits,
    ConvTransposeLimits,
    Costs,
    ElementwiseLimits,
    Hardware,
    March,
    PoolLimits,
    Range,
    ShapeLimits,
    TensorLimits,
    assumed,
    published,
)

_x3 = published("vendor operator list, X3 / J3")
_plugin = published("vendor QAT plugin operator table, bernoulli2")
_chip = published("vendor data sheet, X3")
_arith = published("vendor QAT documentation, bernoulli2")
_derived = published("5 TOPS over two cores, 2 operations a MAC and 1 GHz, from the vendor data sheet")
_hint = published("vendor efficiency hints: W multiple of 8, C multiple of 4")
_hidden = assumed("not published; chosen by carkp")
_open = assumed("no limit published; only the machine model's own bound")
_fitted = assumed("fitted by carkp to published X3 frame rates, benchmarks/perf_fit.py")

INT8 = ("int8",)

BERNOULLI2 = March(
    name="bernoulli2",
    chips="X3, X3M, J3",
    hardware=Hardware(
        clock_hz=_chip(1_000_000_000),
        macs_per_cycle=_derived(1250),
        int16_mac_divisor=_hidden(4),
        mac_pixels=_hidden(8),
        mac_in_channels=_hidden(16),
        mac_out_channels=_hidden(8),
        sram_bytes=_hidden(1 << 20),
        ddr_bytes_per_s=_fitted(3.64e9),
        ddr_burst_bytes=_hidden(64),
        channel_align=_hint(4),
        width_align=_hint(8),
        cores=_chip(2),
    ),
    costs=Costs(
        conv_efficiency=_fitted(0.25),
        depthwise_macs_per_cycle=_hidden(256.0),
        feature_bytes_per_cycle=_hidden(64.0),
        layer_cycles=_hidden(2000),
        instruction_cycles=_hidden(64),
        dma_cycles=_hidden(128),
        launch_us=_hidden(200.0),
    ),
    tensor=TensorLimits(
        ranks=_x3(Range(2, 4)),
        batch=_x3(128),
        side=_open(65536),
        tensor_bytes=_open(1 << 30),
        graph_ends=_open(None),
        dtypes=_arith(INT8),
    ),
    conv=ConvLimits(
        kernel=_x3(Range(1, 7)),
        plain_channels=_x3(4096),
        group_channels=_x3(2048),
        linear_channels=_x3(16384),
        linear_output_blocks=_x3(1024),
        tail_channels=_x3(4096),
        kernel_volume=_x3(32768),
        stride=_x3(Range(1, None)),
        add_strides=_x3((1, 2)),
        dilation=_open(Range(1, None)),
        dilation_power_of_two=_x3(True),
        dilated_stride=_x3("divides"),
        dilated_divides_input=_x3(False),
        dilation_h_at_most_w=_x3(True),
        padding=_open(Range(0, 256)),
        input_dtypes=_arith(INT8),
        output_dtypes=_arith((*INT8, "int32")),
        relu6=_arith(False),
    ),
    conv_transpose=ConvTransposeLimits(
        kernel=_x3(Range(2, 14)),
        channels=_x3(2048),
        kernel_volume=_open(None),
        strides=_plugin((2, 3, 4)),
        stride_h_at_most_w=_x3(True),
        padding_rule=_x3("half"),
        output_padding=_x3(Range(0, 0)),
        kernel_at_least_stride=_open(False),
        dtypes=_arith(INT8),
    ),
    pool=PoolLimits(
        max_kernel=_x3(Range(1, 64)),
        max_stride=_x3(Range(1, 185)),
        max_padding=_x3(Range(0, None)),
        max_dilation=_x3(False),
        avg_kernel=_x3(Range(1, 7)),
        avg_stride=_x3(Range(1, 185)),
        avg_padding=_open(Range(0, None)),
        global_avg_area=_x3(8192),
        global_max_side=_x3(1024),
        max_dtypes=_arith(INT8),
        avg_dtypes=_arith(INT8),
    ),
    elementwise=ElementwiseLimits(
        channels=_x3(2048),
        add_broadcast=_x3(("per_channel",)),
        mul_broadcast=_x3(("per_channel", "scalar")),
        add_constants=_x3(0),
        mul_constants=_open(1),
        ranks=_x3(Range(4, 4)),
        table_elements=_x3(8192),
        sigmoid_aligned_elements=_x3(8192),
        unlimited_functions=_x3(("exp", "leaky_relu", "prelu")),
        cpu_functions=_x3(("abs", "elu", "log")),
        dtypes=_arith(INT8),
    ),
    shape=ShapeLimits(
        concat_inputs=_open(Range(1, 1024)),
        concat_channels=_x3(2048),
        nearest_power_of_two=_x3(True),
        bilinear_power_of_two=_x3(True),
        resize_factor=_plugin(Range(1, 256)),
        resize_h_at_most_w=_x3(True),
        reshape=_x3(False),
        transpose=_x3(False),
        resize_dtypes=_arith(INT8),
        move_dtypes=_arith(INT8),
    ),
    note="int16 activations exist for a few operators only; carkp accepts int8.",
)
