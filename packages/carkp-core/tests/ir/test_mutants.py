"""Faults put into the arithmetic, the reference executor and the fake quantizer: a named test must fail for each.

A mutant is a module's source with one piece of text replaced, executed in the module's place. Tests that would pass
all the same would prove nothing about the rule that they are said to hold.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from attrs import frozen
from hypothesis import Phase, settings

from carkp_core.errors import CarkpError
from carkp_core.ir import arithmetic, reference
from carkp_core.quant import rescale

TESTS = Path(__file__).parents[1]


@frozen
class Mutant:
    """``before`` becomes ``after`` in a module; ``killer`` is a test of ``file``, called with ``arguments``."""

    module: ModuleType
    before: str
    after: str
    file: str
    killer: str
    arguments: tuple[Any, ...] = ()


_ARITHMETIC, _REFERENCE = "ir/test_arithmetic.py", "ir/test_reference.py"
_OPERATORS, _RESCALE = "quant/test_operator_coverage.py", "quant/test_rescale.py"


def operator(before: str, after: str, name: str) -> Mutant:
    return Mutant(reference, before, after, _OPERATORS, "check_operator", (name,))


MUTANTS = {
    "floor instead of rounding": Mutant(
        arithmetic, "+ rounding_half(shift64), shift64)", ", shift64)", _ARITHMETIC, "test_ties_go_up", (2, 1)
    ),
    "half away from zero": Mutant(
        arithmetic, "+ rounding_half(shift64), shift64)",
        "+ rounding_half(shift64) - (np.asarray(value) < 0), shift64)",
        _ARITHMETIC, "test_ties_go_up", (-6, -1),
    ),
    "shift off by one": Mutant(
        arithmetic, "+ rounding_half(shift64), shift64)", "+ rounding_half(shift64), shift64 + 1)",
        _ARITHMETIC, "test_rescale_is_one_product_rounded_half_up",
    ),
    "shift of the multiplier off by one": Mutant(
        arithmetic, "31 - exponent", "30 - exponent",
        _ARITHMETIC, "test_multiplier_and_shift_are_the_float32_ratio_exactly",
    ),
    "no clamp": Mutant(
        arithmetic, "return np.clip(shift_right_round(product, shift), lo, hi)",
        "return shift_right_round(product, shift)", _ARITHMETIC, "test_rescale_is_one_product_rounded_half_up",
    ),
    "product in 32 bits": Mutant(
        arithmetic, "np.asarray(acc, dtype=np.int64) * np.asarray(multiplier, dtype=np.int64)",
        "(np.asarray(acc, dtype=np.int64) * np.asarray(multiplier, dtype=np.int64)).astype(np.int32).astype(np.int64)",
        _ARITHMETIC, "test_rescale_is_one_product_rounded_half_up",
    ),
    "ratio divided first": Mutant(
        arithmetic, "(np.float32(scale_x) * np.float32(scale_w))\n    return np.float32(product / np.float32(scale_y))",
        "(np.float32(scale_x) / np.float32(scale_y))\n    return np.float32(product * np.float32(scale_w))",
        _ARITHMETIC, "test_the_ratio_rounds_the_product_first",
    ),
    "terms of an add rounded to whole steps": Mutant(
        arithmetic, "ADD_FRACTION_BITS = 15", "ADD_FRACTION_BITS = 1",
        _ARITHMETIC, "test_a_term_keeps_fifteen_fractional_bits_and_stays_inside_its_limit",
    ),
    "table one entry off": Mutant(
        arithmetic, "dtype=np.int64) + 128\n", "dtype=np.int64) + 127\n",
        _ARITHMETIC, "test_an_int8_table_has_the_rounded_float64_function",
    ),
    "quantizing half up": Mutant(
        arithmetic, "np.rint(np.asarray(value, dtype=np.float64) / float(np.float32(scale)))",
        "np.floor(np.asarray(value, dtype=np.float64) / float(np.float32(scale)) + 0.5)",
        _ARITHMETIC, "test_quantizing_rounds_half_to_even_and_clamps",
    ),
    "dropped bias of a convolution": Mutant(
        reference, "acc.reshape(n, out_channels, out_h, out_w).astype(np.int64) + _per_channel(op.bias)",
        "acc.reshape(n, out_channels, out_h, out_w).astype(np.int64)", _REFERENCE, "test_convolution_equals_torch",
    ),
    "dropped bias of a transposed convolution": Mutant(
        reference, "left : left + out_w].astype(np.int64) + _per_channel(op.bias)",
        "left : left + out_w].astype(np.int64)", _REFERENCE, "test_transposed_convolution_equals_torch",
    ),
    "pad on the wrong side": Mutant(
        reference, "((0, 0), (0, 0), (top, bottom), (left, right))", "((0, 0), (0, 0), (bottom, top), (left, right))",
        _REFERENCE, "test_convolution_equals_torch",
    ),
    "pad with another value": Mutant(
        reference, "padded = _pad(x.astype(np.float64), op.padding_tlbr, 0)",
        "padded = _pad(x.astype(np.float64), op.padding_tlbr, 1)", _REFERENCE, "test_convolution_equals_torch",
    ),
    "transposed convolution cut at the wrong row": Mutant(
        reference, "full[:, :, top : top + out_h,", "full[:, :, 0:out_h,",
        _REFERENCE, "test_transposed_convolution_equals_torch",
    ),
    "dilation forgotten": Mutant(
        reference, "j * op.dilation_hw[1], op.stride_hw, (out_h, out_w))\n            acc",
        "j, op.stride_hw, (out_h, out_w))\n            acc",
        _REFERENCE, "test_convolution_equals_torch",
    ),
    "padding counted in a mean": Mutant(
        reference, "    if op.count_include_pad:", "    if True:",
        _REFERENCE, "test_average_pooling_equals_a_loop", (False,),
    ),
    "padding that wins a maximum": operator("lowest = np.iinfo(x.dtype).min", "lowest = 127", "max pooling"),
    "sign of a subtraction": operator("return -scaled if term.negative else scaled", "return scaled", "sub"),
    "neighbour of a bilinear resize": operator("(rows + 1).clip", "(rows + 2).clip", "bilinear"),
    "nearest resize rounded down": operator("rows + (2 * row_rest >= n_y)", "rows", "nearest"),
    "concat without its rescale": operator(
        "parts = [arithmetic.rescale(value, term.multiplier, term.shift, op.lo, op.hi) for term, value in pairs]",
        "parts = [value for term, value in pairs]", "concat",
    ),
    "floor in the fake quantizer": Mutant(
        rescale, "torch.full((), 0.5,", "torch.full((), 0.0,", _RESCALE, "test_every_way_equals_the_arithmetic"
    ),
    "a whole step lost under a large bias": Mutant(
        rescale, "return buffer if self._whole is None else buffer.add_(self._whole)", "return buffer",
        _RESCALE, "test_the_edges_of_the_ways", (30,),
    ),
    "float64 beyond its bound": Mutant(
        rescale, "FLOAT64_BOUND = 1 << 28", "FLOAT64_BOUND = 1 << 31",
        _RESCALE, "test_a_product_just_below_a_tie_rounds_down",
    ),
    "gradient through the clamp": Mutant(
        rescale, "passed = gradients[0] * inside\n        passed *=", "passed = gradients[0] * 1.0\n        passed *=",
        _RESCALE, "test_gradients_are_the_ratio_inside_and_zero_where_clamped",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_search_for_smaller_examples() -> Iterator[None]:
    """Tests that are loaded meanwhile fail at the first example that fails."""
    before = settings.get_current_profile_name()
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", phases=phases, database=None, derandomize=True, report_multiple_bugs=False)
    settings.load_profile("mutants")
    yield
    settings.load_profile(before)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_killed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    put_in(mutant, monkeypatch)
    killer = killer_of(mutant.file, mutant.killer)
    with pytest.raises((AssertionError, CarkpError, IndexError, ValueError)):
        killer(*mutant.arguments)


@pytest.mark.parametrize("killer", sorted({(m.file, m.killer, m.arguments) for m in MUTANTS.values()}, key=str))
def test_the_killer_passes_without_a_mutant(killer: tuple[str, str, tuple[Any, ...]]) -> None:
    file, name, arguments = killer
    killer_of(file, name)(*arguments)


def killer_of(file: str, name: str) -> Callable[..., Any]:
    """A function of a test file, loaded anew so that what it imports is what stands in the modules now."""
    spec = importlib.util.spec_from_file_location(f"killers_{Path(file).stem}", TESTS / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)  # type: ignore[no-any-return]


def put_in(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the mutant's functions and constants take the module's place."""
    source = inspect.getsource(mutant.module)
    assert source.count(mutant.before) == 1, f"{mutant.module.__name__} no longer holds {mutant.before!r} once"
    changed: dict[str, Any] = {"__name__": mutant.module.__name__}
    exec(compile(source.replace(mutant.before, mutant.after), "<mutant>", "exec"), changed)
    for name, value in vars(mutant.module).items():
        own = isinstance(value, (FunctionType, type)) and value.__module__ == mutant.module.__name__
        if own or (isinstance(value, (int, tuple, dict)) and not name.startswith("__")):
            monkeypatch.setattr(mutant.module, name, changed[name])
