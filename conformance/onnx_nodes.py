"""ONNX's node tests of the operators that the exporters write, and the table of what was run.

Three routes for each test. ``runtime``: do ONNX's reference evaluator and ONNX Runtime, which the exports are checked
with, compute what ONNX states? ``float``: does the float exporter's model of a torch network that makes the same call?
``integer``: do the integer model of that network and its QDQ export, up to the size of a step?
``python -m conformance.onnx_nodes`` exits 1 when one of the answers is no.
"""

# ruff: noqa: T201 - a script prints what it did

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from attrs import asdict, frozen
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplementedByRuntime

from carkp_core.errors import CarkpError
from carkp_core.export.onnx_float import OPSET_MAX, export_float
from carkp_core.ir.arithmetic import INT_RANGE, dequantize, quantize
from conformance.onnx_float import float_network
from conformance.onnx_integer import integer_results, run_onnx
from conformance.onnx_tests import WRITTEN, Array, LeftOutError, NodeTest, node_tests

Route = Callable[[NodeTest], Iterator[str]]


@frozen
class Row:
    """An operator's line: of its tests, how many each route ran; why the exporters write no such node; what differs."""

    operator: str
    tests: int
    run: dict[str, int]
    left_out: dict[str, int]
    failures: list[str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every test and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the table here, too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    onnxruntime.set_default_logger_severity(4)
    tests = list(node_tests())
    rows = [judge(name, [test for test in tests if test.op_type == name]) for name in WRITTEN]
    print("\n".join(table(rows)))
    failures = [failure for row in rows for failure in row.failures]
    for failure in failures:
        print(f"FAILED {failure}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    sys.exit(1 if failures or not tests else 0)


def judge(operator: str, tests: Sequence[NodeTest]) -> Row:
    """An operator's tests on every route."""
    run, left_out, failures = Counter[str](), Counter[str](), list[str]()
    for test, name in itertools.product(tests, ROUTES):
        found, reason = taken(ROUTES[name], test)
        failures += [f"{test.name}: {name}: {failure}" for failure in found]
        if not reason:
            run[name] += 1
        elif name == "float":
            left_out[reason] += 1
    return Row(operator, len(tests), dict(run), dict(left_out), failures)


def taken(route: Route, test: NodeTest) -> tuple[list[str], str]:
    """What differs on a route, and why the test cannot take it, if it cannot."""
    try:
        return list(route(test)), ""
    except LeftOutError as reason:
        return [], str(reason)
    except CarkpError as error:
        return [str(error)], ""


def runtime_route(test: NodeTest) -> Iterator[str]:
    """The test's own model. What ONNX Runtime makes of a form that the exporters never write is its own affair."""
    (reference, *_) = ReferenceEvaluator(test.model).run(None, test.feeds)
    yield from differs("reference evaluator", np.asarray(reference), test)
    found = _runtime_result(test)
    problems = list(differs("ONNX Runtime", found, test))
    if problems and test.op_type not in _QUANTIZERS:
        float_network(test)
    yield from problems


def _runtime_result(test: NodeTest) -> Array:
    """In its own operator set; where the runtime does not know that, in the newest that the exporters write."""
    older = type(test.model)()
    older.CopyFrom(test.model)
    older.opset_import[0].version = min(older.opset_import[0].version, OPSET_MAX)
    for model in (test.model, older):
        with contextlib.suppress(NotImplementedByRuntime, RuntimeError):
            return run_onnx(model, list(test.feeds.values()))
    raise LeftOutError("a type that ONNX Runtime does not have")


def float_route(test: NodeTest) -> Iterator[str]:
    """The float exporter's model of a network with one call."""
    if test.op_type in _QUANTIZERS:
        raise LeftOutError("for the integer export only")
    network = float_network(test)
    examples = {f"input{index}": torch.from_numpy(value[:1].copy()) for index, value in enumerate(network.inputs)}
    model = export_float(network.module.eval(), examples)
    yield from differs("float export", run_onnx(model, network.inputs, images=True), test)


def integer_route(test: NodeTest) -> Iterator[str]:
    """The integer model of that network and its QDQ export; quantizing and dequantizing themselves, exactly."""
    if test.op_type in _QUANTIZERS:
        yield from differs("arithmetic", _QUANTIZERS[test.op_type](test), test)
        return
    for name, found, allowed in integer_results(test, float_network(test)):
        error = float(np.abs(found.reshape(test.expected.shape) - test.expected).max())
        if error > allowed:
            yield f"{name}: off by {error:.3g}, allowed {allowed:.3g}"


def differs(what: str, found: Array, test: NodeTest) -> Iterator[str]:
    """A line when an element is further off than the test allows (or than float32 is fine, where that is more)."""
    rtol, atol = test.tolerance
    expected, value = (np.asarray(array, dtype=np.float64) for array in (test.expected, found))
    if value.size != expected.size:
        yield f"{what}: {value.shape}, expected {expected.shape}"
    elif not np.allclose(value.reshape(expected.shape), expected, rtol=rtol, atol=max(atol, 1e-6), equal_nan=True):
        yield f"{what}: off by {np.abs(value.reshape(expected.shape) - expected).max():.3g}"


def _quantized(test: NodeTest) -> Array:
    """carkp has no zero points: they are added after, and the type's range is kept after that."""
    scale, zero = _scale_and_zero(test)
    lowest, highest = np.iinfo(test.expected.dtype).min, np.iinfo(test.expected.dtype).max
    return np.clip(quantize(test.tensor(), scale, "int32").astype(np.int64) + zero, lowest, highest)


def _dequantized(test: NodeTest) -> Array:
    scale, zero = _scale_and_zero(test)
    stored = test.input(0)
    assert stored is not None
    return dequantize(stored.astype(np.int64) - zero, scale)


def _scale_and_zero(test: NodeTest) -> tuple[float, int]:
    scale, zero = test.input(1), test.input(2)
    if scale is None or scale.size > 1:
        raise LeftOutError("a scale for each channel or block")
    if test.expected.dtype.name not in (*INT_RANGE, "uint8", "uint16", "float32"):
        raise LeftOutError("types of fewer than 8 bits")
    return float(scale), 0 if zero is None else int(zero)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The table as lines of text."""
    heads = "".join(f"{name:>9}" for name in ("tests", *ROUTES, "failed"))
    yield f"{'operator':<18}{heads}   not a form that the float export writes"
    for row in rows:
        numbers = (row.tests, *(row.run.get(name, 0) for name in ROUTES), len(row.failures))
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(row.left_out.items())) or "-"
        yield f"{row.operator:<18}{''.join(f'{number:>9}' for number in numbers)}   {reasons}"
    sums = (sum(r.tests for r in rows), *(sum(r.run.get(n, 0) for r in rows) for n in ROUTES))
    yield f"{'all':<18}{''.join(f'{n:>9}' for n in (*sums, sum(len(r.failures) for r in rows)))}"


_QUANTIZERS: dict[str, Callable[[NodeTest], Any]] = {"QuantizeLinear": _quantized, "DequantizeLinear": _dequantized}

ROUTES: dict[str, Route] = {
    "runtime": runtime_route,
    "float": float_route,
    "integer": integer_route,
}


if __name__ == "__main__":
    main()
