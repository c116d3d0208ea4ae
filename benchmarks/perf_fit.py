"""Fit the performance model's constants to published board measurements, and print the values with their error.

Run ``python benchmarks/perf_fit.py [MARCH]``; copy the values into ``carkp_bpu/march/*``. The fit minimises the squared
logarithm of estimated over measured time, with a weak pull of every constant towards its start, since rows are few.
A march with one or two rows fits only the constants that its rows can tell apart; the others stay.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import attrs

from carkp_bpu.march import find_march
from carkp_bpu.march.base import March
from carkp_bpu.perf.layers import schedule
from carkp_bpu.perf.measurements import MEASUREMENTS, Measurement
from carkp_bpu.perf.networks import NETWORKS

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


def estimated_ms(row: Measurement, march: March) -> float:
    """Device time of a row's network."""
    return 1e3 * schedule(NETWORKS[row.network](), march)[-1].end / march.clock_hz


def fit(name: str) -> dict[str, float]:
    """Coordinate descent in the logarithms of the constants."""
    march = find_march(name)
    rows = [row for row in MEASUREMENTS if row.march == name and not row.held_out]
    start = {constant: _value(march, constant) for constant in FITTED[name]}
    best, step = dict(start), 0.5
    best_loss = _loss(march, rows, best, start)
    while step > 1e-3:
        improved = False
        for constant in start:
            for factor in (math.exp(step), math.exp(-step)):
                trial = best | {constant: best[constant] * factor}
                loss = _loss(march, rows, trial, start)
                if loss < best_loss:
                    best, best_loss, improved = trial, loss, True
        step = step if improved else step / 2
    return best


def _value(march: March, name: str) -> float:
    record = march.hardware if hasattr(march.hardware, name) else march.costs
    return float(getattr(record, name).value)


def _loss(march: March, rows: list[Measurement], values: Mapping[str, float], start: Mapping[str, float]) -> float:
    candidate = with_constants(march, values)
    misfit = sum(math.log(estimated_ms(row, candidate) / row.device_ms) ** 2 for row in rows)
    return misfit + PULL * sum(math.log(values[name] / start[name]) ** 2 for name in values)


def main(names: list[str]) -> None:
    for name in names or list(FITTED):
        values = fit(name)
        march = with_constants(find_march(name), values)
        rows = [row for row in MEASUREMENTS if row.march == name]
        print(name, ", ".join(f"{constant}={value:.4g}" for constant, value in values.items()))
        for row in rows:
            ratio = estimated_ms(row, march) / row.device_ms
            note = "  held out" if row.held_out else ""
            print(f"  {row.network:<26} {row.device_ms:7.3f} ms measured {ratio - 1:+6.1%}{note}")
        launches = [1e3 * (row.thread_ms - row.device_ms) for row in rows if row.thread_ms is not None]
        if launches:
            print(f"  launch_us={sorted(launches)[len(launches) // 2]:.0f} (median of one frame alone - device time)")


if __name__ == "__main__":
    main(sys.argv[1:])
