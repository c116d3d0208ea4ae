"""bayes (J5, RDK Ultra) and bayes-e (X5): one set of operator limits, two machines."""

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

_list = published("vendor operator list, RDK Ultra / J5 / X5")
_plugin = published("vendor QAT plugin operator table, bayes")
_ultra = published("vendor data sheets, J5")
_x5 = published("vendor data sheet, X5")
_ultra_derived = published("128 TOPS over two cores, 2 operations a MAC; the vendor's figure, at the assumed clock")
_x5_derived = published("10 TOPS, 2 operations a MAC, 1 GHz; the vendor's figure")
_hint = published("vendor efficiency hints: W multiple of 8, C multiple of 4")
_report = published("average rate of a memory-bound network in a published vendor performance report, bayes")
_hidden = assumed("not published; chosen by carkp")
_open = assumed("no limit published; only the machine model's own bound")
_fitted_x5 = assumed("fitted by carkp to published X5 frame rates, benchmarks/perf_fit.py")
_fitted_j5 = assumed("fitted by carkp to the published J5 figures of the keypoint network, benchmarks/perf_fit.py")
_set_j5 = assumed("set by hand on the one published J5 row; the fit of its program gives about 2300")
_set_x5 = assumed("chosen by carkp, on the large side: the programs of published networks keep their maps in it")

INT8 = ("int8",)
INT8_INT16 = ("int8", "int16")

TENSOR = TensorLimits(
    ranks=_list(Range(2, 5)),
    batch=_list(4096),
    side=_list(65536),
    tensor_bytes=_list(1 << 30),
    graph_ends=_open(None),
    dtypes=_list(INT8_INT16),
)
CONV = ConvLimits(
    kernel=_list(Range(1, 31)),
    plain_channels=_list(8192),
    group_channels=_list(8192),
    linear_channels=_list(8192),
    linear_output_blocks=_list(None),
    tail_channels=_plugin(16384),
    kernel_volume=_list(65535),
    stride=_list(Range(1, 256)),
    add_strides=_list((1, 2)),
    dilation=_list(Range(1, 16)),
    dilation_power_of_two=_list(False),
    dilated_stride=_list("one"),
    dilated_divides_input=_list(True),
    dilation_h_at_most_w=_list(False),
    padding=_list(Range(0, 256)),
    input_dtypes=_plugin(INT8_INT16),
    output_dtypes=_plugin((*INT8_INT16, "int32")),
    relu6=_plugin(True),
)
CONV_TRANSPOSE = ConvTransposeLimits(
    kernel=_plugin(Range(2, 14)),
    channels=_list(2048),
    kernel_volume=_list(65535),
    strides=_list(tuple(range(1, 15))),
    stride_h_at_most_w=_open(False),
    padding_rule=_list("by_stride"),
    output_padding=_list(Range(0, 1)),
    kernel_at_least_stride=_plugin(True),
    dtypes=_plugin(INT8),
)
POOL = PoolLimits(
    max_kernel=_list(Range(1, 256)),
    max_stride=_list(Range(1, 256)),
    max_padding=_plugin(Range(0, 255)),
    max_dilation=_open(False),
    avg_kernel=_list(Range(1, 256)),
    avg_stride=_list(Range(1, 256)),
    avg_padding=_list(Range(0, 256)),
    global_avg_area=_list(None),
    global_max_side=_list(256),
    max_dtypes=_list(INT8_INT16),
    avg_dtypes=_list(INT8_INT16),
)
ELEMENTWISE = ElementwiseLimits(
    channels=_list(65536),
    add_broadcast=_list(("any",)),
    mul_broadcast=_list(("any",)),
    add_constants=_list(1),
    mul_constants=_list(1),
    ranks=_list(Range(2, 5)),
    table_elements=_list(None),
    sigmoid_aligned_elements=_list(None),
    unlimited_functions=_list(()),
    cpu_functions=_list(()),
    dtypes=_list(INT8_INT16),
)
SHAPE = ShapeLimits(
    concat_inputs=_list(Range(2, 1024)),
    concat_channels=_list(65536),
    nearest_power_of_two=_list(True),
    bilinear_power_of_two=_list(False),
    resize_factor=_open(Range(1, 256)),
    resize_h_at_most_w=_list(True),
    reshape=_list(True),
    transpose=_list(True),
    resize_dtypes=_list(INT8_INT16),
    move_dtypes=_list(INT8_INT16),
)

BAYES = March(
    name="bayes",
    chips="J5, RDK Ultra",
    hardware=Hardware(
        clock_hz=_hidden(1_000_000_000),
        macs_per_cycle=_ultra_derived(32_000),
        int16_mac_divisor=_hidden(4),
        mac_pixels=_hidden(8),
        mac_in_channels=_hidden(32),
        mac_out_channels=_hidden(32),
        sram_bytes=_hidden(2 << 20),
        ddr_bytes_per_s=_report(7.66e9),
        ddr_burst_bytes=_hidden(64),
        channel_align=_hint(4),
        width_align=_hint(8),
        cores=_ultra(2),
    ),
    costs=Costs(
        conv_efficiency=_hidden(0.5),
        depthwise_macs_per_cycle=_hidden(1024.0),
        feature_bytes_per_cycle=_hidden(256.0),
        layer_cycles=_set_j5(2400),
        instruction_cycles=_hidden(64),
        dma_cycles=_hidden(128),
        launch_us=_fitted_j5(279.0),
    ),
    tensor=TENSOR,
    conv=CONV,
    conv_transpose=CONV_TRANSPOSE,
    pool=POOL,
    elementwise=ELEMENTWISE,
    shape=SHAPE,
)

BAYES_E = March(
    name="bayes-e",
    chips="X5",
    hardware=Hardware(
        clock_hz=_x5(1_000_000_000),
        macs_per_cycle=_x5_derived(5000),
        int16_mac_divisor=_hidden(4),
        mac_pixels=_hidden(8),
        mac_in_channels=_hidden(8),
        mac_out_channels=_hidden(16),
        sram_bytes=_set_x5(2 << 20),
        ddr_bytes_per_s=_fitted_x5(6.83e9),
        ddr_burst_bytes=_hidden(64),
        channel_align=_hint(4),
        width_align=_hint(8),
        cores=_x5(1),
    ),
    costs=Costs(
        conv_efficiency=_fitted_x5(0.5),
        depthwise_macs_per_cycle=_hidden(1024.0),
        feature_bytes_per_cycle=_fitted_x5(40.0),
        layer_cycles=_fitted_x5(2660),
        instruction_cycles=_hidden(64),
        dma_cycles=_hidden(128),
        launch_us=_fitted_x5(552.0),
    ),
    tensor=TENSOR,
    conv=CONV,
    conv_transpose=CONV_TRANSPOSE,
    pool=POOL,
    elementwise=ELEMENTWISE,
    shape=SHAPE,
)
