"""Fit the performance model's constants to published board measurements, and print the values with their error.

Run ``python benchmarks/perf_fit.py [MARCH]``; copy the values into ``carkp_bpu/march/*``. The fit minimises the squared
logarithm of estimated over measured time, with a weak pull of every constant towards its start, since rows are few.
A march with one or two rows fits only the constants that its rows can tell apart; the others stay.

Networks are estimated as users meet them: compiled at O2 (``perf.graphs``) and timed instruction by instruction.
Programs are compiled with the constants at the start of the fit, and again with the fitted ones for the errors that are
printed. The quick estimate by layers, which needs no compiler, stands beside.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import attrs

from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march import find_march
from carkp_bpu.march.base import March
from carkp_bpu.perf.graphs import GRAPHS
from carkp_bpu.perf.layers import schedule
from carkp_bpu.perf.measurements import MEASUREMENTS, Measurement
from carkp_bpu.perf.networks import NETWORKS
from carkp_bpu.perf.timeline import timeline
from carkp_core.backend import CompileOptions

#: Constants fitted for each march.
FITTED: Mapping[str, tuple[str, ...]] = {
    "bayes-e": ("ddr_bytes_per_s", "conv_efficiency", "feature_bytes_per_cycle", "layer_cycles"),
    "bernoulli2": ("ddr_bytes_per_s", "conv_efficiency"),
    "bayes": ("layer_cycles",),
}
#: Weight of a constant's squared logarithmic distance from its start.
PULL = 0.002


def with_constants(march: March, values: Mapping[str, float]) -> March:
    """A march with some constants of its hardware and costs replaced."""
    return attrs.evolve(march, hardware=_changed(march.hardware, values), costs=_changed(march.costs, values))


def _changed(record: Any, values: Mapping[str, float]) -> Any:
    mine = {name: value for name, value in values.items() if hasattr(record, name)}
    return attrs.evolve(record, **{n: attrs.evolve(getattr(record, n), value=v) for n, v in mine.items()})


def program_of(row: Measurement, march: March) -> HbmProgram:
    """A row's network compiled for a march."""
    options = CompileOptions(march.name, row.network, "model.hbm", ".", "O2")  # type: ignore[arg-type]
    return compile_graph(GRAPHS[row.network](), march, options).program


def program_ms(program: HbmProgram, march: March) -> float:
    """Device time of a program."""
    return 1e3 * timeline(program, march).cycles / march.clock_hz


def layers_ms(network: str, march: March) -> float:
    """Device time by layers."""
    return 1e3 * schedule(NETWORKS[network](), march)[-1].end / march.clock_hz


def fit(name: str) -> dict[str, float]:
    """Coordinate descent in the logarithms of the constants."""
    march = find_march(name)
    rows = [(program_of(row, march), row.device_ms) for row in MEASUREMENTS if row.march == name and not row.held_out]
    start = {constant: _value(march, constant) for constant in FITTED[name]}

    def loss(values: Mapping[str, float]) -> float:
        candidate = with_constants(march, values)
        misfit = sum(math.log(program_ms(program, candidate) / measured) ** 2 for program, measured in rows)
        return misfit + PULL * sum(math.log(values[constant] / start[constant]) ** 2 for constant in values)

    best, step = dict(start), 0.25
    best_loss = loss(best)
    while step > 0.01:
        improved = False
        for constant in start:
            for factor in (math.exp(step), math.exp(-step)):
                trial = best | {constant: best[constant] * factor}
                trial_loss = loss(trial)
                if trial_loss < best_loss:
                    best, best_loss, improved = trial, trial_loss, True
        step = step if improved else step / 2
    return best


def _value(march: March, name: str) -> float:
    record = march.hardware if hasattr(march.hardware, name) else march.costs
    return float(getattr(record, name).value)


def print_errors(name: str, values: Mapping[str, float]) -> None:
    """Each row with the error of shipped and of fitted constants."""
    shipped = find_march(name)
    fitted = with_constants(shipped, values)
    rows = [row for row in MEASUREMENTS if row.march == name]
    sums: dict[str, list[float]] = {"fit": [], "held out": []}
    for row in rows:
        errors = [program_ms(program_of(row, march), march) / row.device_ms - 1 for march in (shipped, fitted)]
        by_layers = layers_ms(row.network, fitted) / row.device_ms - 1
        kind = "held out" if row.held_out else "fit"
        sums[kind].append(abs(errors[1]))
        print(
            f"  {row.network:<26} {row.device_ms:7.3f} ms measured; shipped {errors[0]:+6.1%}, "
            f"fitted {errors[1]:+6.1%}, by layers {by_layers:+6.1%}  {kind}",
            flush=True,
        )
    means = ", ".join(f"{kind} {sum(found) / len(found):.1%} of {len(found)}" for kind, found in sums.items() if found)
    print(f"  mean absolute error with the fitted constants: {means}")
    launches = [1e3 * (row.thread_ms - row.device_ms) for row in rows if row.thread_ms is not None]
    if launches:
        print(f"  launch_us={sorted(launches)[len(launches) // 2]:.0f} (median of one frame alone - device time)")


def main(names: list[str]) -> None:
    for name in names or list(FITTED):
        values = fit(name)
        print(name, ", ".join(f"{constant}={value:.4g}" for constant, value in values.items()), flush=True)
        print_errors(name, values)


if __name__ == "__main__":
    main(sys.argv[1:])
