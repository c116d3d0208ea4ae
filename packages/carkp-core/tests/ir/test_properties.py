"""What must hold for every input: properties of the arithmetic, the executor, the quantizer and the stored forms."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from exact_networks import calibrated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from carkp_core.ir import arithmetic, reference
from carkp_core.ir import operators as ops
from carkp_core.ir.binary import from_bytes, to_bytes
from carkp_core.ir.graph import Graph, GraphInput, Node, Source, TensorType
from carkp_core.ir.text import to_text
from carkp_core.ir.text_reader import from_text
from carkp_core.quant.convert import convert
from carkp_core.quant.fold_batch_norm import fold_batch_norm
from carkp_core.quant.lower import definitions, lower
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.trace import trace

Ints = npt.NDArray[Any]
SEEDS = st.integers(0, 10**6)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
#: float32 scales as calibration makes them.
SCALES = st.floats(2.0**-12, 2.0**4, width=32)


def int8(rng: np.random.Generator, *shape: int) -> Ints:
    return rng.integers(-128, 128, shape).astype(np.int8)


def run(op: Any, *inputs: Ints, dtype: str = "int8") -> Ints:
    """One operator by the reference executor."""
    shape = op.infer_shape(tuple(x.shape for x in inputs))
    names = tuple(f"x{index}" for index in range(len(inputs)))
    return reference.execute_node(Node("y", op, names, TensorType((1, *shape[1:]), dtype, 1.0)), inputs)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[ops.Conv2d, Ints]:
    """A convolution with rescales that use the int8 range, and an input."""
    rng = np.random.default_rng(draw(SEEDS))
    groups, inside, outside, kernel = (draw(st.integers(1, 3)) for _ in range(4))
    count = groups * outside
    op = ops.Conv2d(
        weight=rng.integers(-127, 128, (count, inside, kernel, kernel)),
        bias=rng.integers(-5000, 5000, count),
        multiplier=rng.integers(1 << 30, 1 << 31, count),
        shift=rng.integers(38, 42, count),
        lo=draw(st.sampled_from([-128, 0])),
        hi=draw(st.sampled_from([127, 90])),
        stride_hw=(draw(st.integers(1, 2)), 1),
        padding_tlbr=tuple(draw(st.integers(0, 2)) for _ in range(4)),  # type: ignore[arg-type]
        groups=groups,
    )
    return op, int8(rng, 3, groups * inside, 6, 5)


@FEW
@given(convolutions())
def test_batch_invariance(case: tuple[ops.Conv2d, Ints]) -> None:
    op, x = case
    one_by_one = np.concatenate([run(op, image[None]) for image in x])
    assert np.array_equal(run(op, x), one_by_one)


@FEW
@given(convolutions(), SEEDS)
def test_permuting_the_output_channels_permutes_the_output(case: tuple[ops.Conv2d, Ints], seed: int) -> None:
    op, x = case
    if op.groups > 1:
        return
    order = np.random.default_rng(seed).permutation(len(op.bias))
    arrays = ("weight", "bias", "multiplier", "shift")
    permuted = attrs.evolve(op, **{name: getattr(op, name)[order] for name in arrays})
    assert np.array_equal(run(permuted, x), run(op, x)[:, order])


@FEW
@given(convolutions(), SEEDS)
def test_permuting_the_input_channels_with_the_weights_changes_nothing(
    case: tuple[ops.Conv2d, Ints], seed: int
) -> None:
    op, x = case
    if op.groups > 1:
        return
    order = np.random.default_rng(seed).permutation(x.shape[1])
    assert np.array_equal(run(attrs.evolve(op, weight=op.weight[:, order]), x[:, order]), run(op, x))


@FEW
@given(
    SEEDS, st.integers(2, 14), st.integers(1, 4), st.integers(1, 2), st.tuples(*[st.integers(0, 2)] * 4),
    st.integers(0, 3),
)  # fmt: skip
def test_a_transposed_convolution_is_a_convolution_of_the_zero_stuffed_input(
    seed: int, kernel: int, stride: int, groups: int, padding: tuple[int, int, int, int], extra: int
) -> None:
    rng = np.random.default_rng(seed)
    extra = min(extra, stride - 1)
    weight = rng.integers(-127, 128, (2 * groups, 3, kernel, kernel))
    arrays: dict[str, Any] = {
        "bias": rng.integers(-5000, 5000, 3 * groups),
        "multiplier": rng.integers(1 << 30, 1 << 31, 3 * groups),
        "shift": rng.integers(40, 44, 3 * groups),
        "lo": -128,
        "hi": 127,
    }
    x = int8(rng, 2, 2 * groups, 4, 5)
    padding = tuple(min(p, (kernel - 1) // 2) for p in padding)  # type: ignore[assignment]
    transposed = ops.ConvTranspose2d(
        weight,
        **arrays,
        stride_hw=(stride, stride),
        padding_tlbr=padding,
        output_padding_hw=(extra, extra),
        groups=groups,
    )
    stuffed = np.zeros((2, 2 * groups, 3 * stride + 1, 4 * stride + 1), np.int8)
    stuffed[:, :, ::stride, ::stride] = x
    # Per group the kernel is turned by half a circle, and its channel axes change places.
    turned = weight[:, :, ::-1, ::-1].reshape(groups, 2, 3, kernel, kernel).transpose(0, 2, 1, 3, 4)
    top, left, bottom, right = (kernel - 1 - p for p in padding)
    plain = ops.Conv2d(
        turned.reshape(3 * groups, 2, kernel, kernel), **arrays,
        padding_tlbr=(top, left, bottom + extra, right + extra), groups=groups,
    )  # fmt: skip
    assert np.array_equal(run(transposed, x), run(plain, stuffed))


@FEW
@given(convolutions(), st.integers(-40, 40), st.integers(0, 80))
def test_a_fused_activation_equals_an_unfused_one(case: tuple[ops.Conv2d, Ints], lo: int, span: int) -> None:
    op, x = case
    plain, fused = attrs.evolve(op, lo=-128, hi=127), attrs.evolve(op, lo=lo, hi=lo + span)
    assert np.array_equal(run(fused, x), run(ops.Clamp(lo, lo + span), run(plain, x)))


@FEW
@given(SEEDS, st.booleans(), st.booleans())
def test_folding_batch_norm_keeps_the_float_function(seed: int, transposed: bool, bias: bool) -> None:
    torch.manual_seed(seed)
    conv: nn.Module = (
        nn.ConvTranspose2d(4, 6, 3, 2, groups=2, bias=bias) if transposed else nn.Conv2d(4, 6, 3, groups=2, bias=bias)
    )
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.normal_(norm.bias)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.01, 4)
    net, x = nn.Sequential(conv, norm).eval(), torch.randn(2, 4, 6, 6)
    layers = lower(trace(net, {"img": x[:1]}), definitions())
    fold_batch_norm(layers)
    assert len(list(layers)) == 1
    with torch.no_grad():
        expected = net(x)
        (folded,) = QuantizedNetwork(layers).float_values([x]).values()
    assert torch.allclose(folded, expected, rtol=1e-4, atol=1e-4)


@given(
    st.integers(0, (1 << 31) - 1), st.integers(2, 62),
    st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=2, max_size=20),
)  # fmt: skip
def test_rescale_is_monotone_for_any_multiplier(multiplier: int, shift: int, accs: list[int]) -> None:
    got = arithmetic.rescale(np.sort(np.asarray(accs, np.int64)), multiplier, shift, -32768, 32767)
    assert bool((np.diff(got) >= 0).all())


@given(SEEDS, st.sampled_from(["int8", "int16"]), SCALES)
def test_saturation_is_idempotent(seed: int, dtype: str, scale: float) -> None:
    """Clamping twice, rescaling by 1, and quantizing what was quantized change nothing more."""
    rng = np.random.default_rng(seed)
    lo, hi = arithmetic.INT_RANGE[dtype]
    wide = rng.integers(-(1 << 31), 1 << 31, 50)
    once = np.clip(wide, lo, hi)
    assert np.array_equal(np.clip(once, lo, hi), once)
    assert np.array_equal(arithmetic.rescale(once, *arithmetic.multiplier_and_shift(1.0), lo, hi), once)
    quantized = arithmetic.quantize(rng.normal(0, 60 * scale, 50), scale, dtype)
    assert np.array_equal(arithmetic.quantize(arithmetic.dequantize(quantized, scale), scale, dtype), quantized)


@given(SEEDS, SCALES, st.floats(0.1, 1.0))
def test_more_bits_never_raise_the_error_bound(seed: int, absmax: float, share: float) -> None:
    """Half a step plus what is clipped bounds the error in both types, and int16's bound is not above int8's."""
    values = np.random.default_rng(seed).uniform(-absmax, absmax, 200)
    bounds = {}
    for dtype in ("int8", "int16"):
        lo, hi = arithmetic.INT_RANGE[dtype]
        scale = float(np.float32(absmax * share / hi))
        restored = arithmetic.quantize(values, scale, dtype).astype(np.float64) * scale
        clipped = np.maximum(np.maximum(values - hi * scale, lo * scale - values), 0.0)
        bounds[dtype] = np.maximum(scale / 2, clipped)
        # One float64 rounding of value / scale may decide a tie either way.
        assert (np.abs(restored - values) <= bounds[dtype] * (1 + 1e-9)).all()
    # The types' ends are absmax * share to a float32 rounding; int8's least value lies a step further out.
    slack = absmax * 2.0**-22
    assert (bounds["int16"] <= bounds["int8"] + slack + np.where(values < 0, absmax * share / 127, 0.0)).all()


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Chains of operators over one image, with odd names, sources and metadata."""
    rng = np.random.default_rng(draw(SEEDS))
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    kind = TensorType((1, 2, 6, 6), draw(st.sampled_from(["int8", "int16"])), draw(SCALES))
    nodes: list[Node] = []
    names = [f"x{draw(text)}"]
    for index in range(draw(st.integers(1, 5))):
        op = _operator(draw(st.sampled_from(range(6))), rng, kind, len(names))
        name = f"{index}{draw(text)}"
        read = names[-1:] if not isinstance(op, (ops.Add, ops.Concat)) else [names[-1], names[0]]
        if isinstance(op, (ops.Add, ops.Concat)) and len({_type_of(nodes, kind, n).shape for n in read}) > 1:
            continue
        shape = op.infer_shape(tuple(_type_of(nodes, kind, n).shape for n in read))
        source = draw(st.builds(Source, text, text, st.integers(0, 99)))
        before = _type_of(nodes, kind, read[0])
        nodes.append(Node(name, op, tuple(read), before.with_shape(tuple(shape)), source))
        names.append(name)
    metadata = draw(st.dictionaries(text, text, max_size=2))
    return Graph(draw(text), (GraphInput(names[0], kind, draw(text)),), tuple(nodes), (names[-1],), metadata)


def _type_of(nodes: list[Node], kind: TensorType, name: str) -> TensorType:
    return next((node.type for node in nodes if node.name == name), kind)


def _operator(which: int, rng: np.random.Generator, kind: TensorType, count: int) -> Any:
    lo, hi = arithmetic.INT_RANGE[kind.dtype]
    term = ops.Term(int(rng.integers(1 << 30, 1 << 31)), 40, bool(rng.integers(2)))
    if which == 0:
        return ops.Add((term, attrs.evolve(term, shift=41)), lo, hi)
    if which == 1:
        return ops.MaxPool((2, 2), (1, 1), (0, 1, 1, 0))
    if which == 2 and kind.dtype == "int8":
        return ops.Table(int8(rng, 256), "any function")
    if which == 3:
        return ops.Pad((1, 0, 0, 1), -3)
    if which == 4:
        return ops.Rescale(term.multiplier, 31, lo, hi)
    return ops.Clamp(-5, 100)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_both_stored_forms_round_trip(graph: Graph) -> None:
    data, text = to_bytes(graph), to_text(graph)
    assert to_bytes(from_bytes(data)) == data
    assert to_text(from_text(text)) == text
    assert to_bytes(from_text(text)) == data


def test_a_converted_network_round_trips_in_both_forms() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.PReLU(8), nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Sigmoid(),
    )  # fmt: skip
    graph = convert(calibrated(net, torch.randn(2, 3, 16, 16)), "net", None, {"march": "bayes"})
    read = from_text(to_text(graph))
    assert to_bytes(read) == to_bytes(graph)
    assert read.digest() == graph.digest()
