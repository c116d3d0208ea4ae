"""Generated TOSA tests through both executors, and the table of what was run. In carkp's environment.

``python -m conformance.run FOLDER`` exits 1 when an element differs, or too few tests could be run.
"""

# ruff: noqa: T201 - a script prints what it did

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from attrs import asdict, field, frozen

from carkp_bpu.simulator.graph import simulate
from carkp_core.ir.reference import execute
from conformance import program as programs
from conformance.program import Array, Program
from conformance.translate import LeftOutError, Translation, translate

#: Left out, and not counted either: outside the profile's part that the integer IR has.
NOT_COUNTED = ("zero point not 0", "unsigned type", "double rounding", "inexact rounding")
#: The share of the counted tests with int8 input (int32 where TOSA has no other) that must run.
REQUIRED_SHARE = 0.9
INT32_OPERATORS = ("add", "sub")


@frozen
class Outcome:
    """One test: why it was left out, or how many elements differ in each executor."""

    test: str
    dtype: str
    left_out: str = ""
    differing_reference: int = 0
    differing_simulator: int = 0

    @property
    def failed(self) -> bool:
        return bool(self.differing_reference or self.differing_simulator)


@frozen
class Row:
    """An operator's line of the table."""

    operator: str
    generated: int
    counted: int
    run: int
    failed: int
    #: Counted and run, of those whose input has the type that the operator is judged by.
    judged: tuple[str, int, int]
    left_out: dict[str, int] = field(factory=dict)

    @property
    def enough(self) -> bool:
        _, counted, run = self.judged
        return counted > 0 and run >= REQUIRED_SHARE * counted


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything in a folder and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what conformance.generate wrote")
    parser.add_argument("--json", type=Path, help="write the table here, too")
    options = parser.parse_args(arguments)
    rows, failures = [], []
    for folder in sorted(path for path in options.folder.iterdir() if path.is_dir()):
        outcomes = [judge(programs.load(file.parent)) for file in sorted(folder.glob(f"*/{programs.FILE}"))]
        failures += [outcome for outcome in outcomes if outcome.failed]
        rows.append(summarize(folder.name, outcomes))
    print("\n".join(table(rows)))
    for outcome in failures[:20]:
        print(f"FAILED {outcome}")
    if options.json:
        payload = {"rows": [asdict(row) for row in rows], "failures": [asdict(outcome) for outcome in failures]}
        options.json.write_text(json.dumps(payload, indent=1))
    sys.exit(1 if failures or not rows or not all(row.enough for row in rows) else 0)


def judge(program: Program) -> Outcome:
    """Run one program on both executors."""
    dtype = program.tensors[program.operators[0].inputs[0]].dtype
    try:
        translation = translate(program)
    except LeftOutError as reason:
        return Outcome(program.name, dtype, left_out=str(reason))
    by_reference = execute(translation.graph, translation.inputs)
    by_simulator = simulate(translation.graph, threads=1)(translation.inputs)
    counts = (differing(program, translation, found) for found in (by_reference, by_simulator))
    return Outcome(program.name, dtype, "", *counts)


def differing(program: Program, translation: Translation, found: dict[str, Array]) -> int:
    """How many elements of the outputs are not what TOSA's reference model computed."""
    total = 0
    for output, name in zip(program.outputs, translation.graph.outputs, strict=True):
        expected, value = program.expected[output], translation.layout.tosa(found[name])
        same_kind = value.shape == expected.shape and value.dtype == expected.dtype
        total += int(np.count_nonzero(value != expected)) if same_kind else max(1, expected.size)
    return total


def summarize(operator: str, outcomes: Sequence[Outcome]) -> Row:
    """The line of an operator."""
    counted = [outcome for outcome in outcomes if outcome.left_out not in NOT_COUNTED]
    dtype = "int32" if operator in INT32_OPERATORS else "int8"
    judged = [outcome for outcome in counted if outcome.dtype == dtype]
    return Row(
        operator,
        generated=len(outcomes),
        counted=len(counted),
        run=sum(not outcome.left_out for outcome in counted),
        failed=sum(outcome.failed for outcome in counted),
        judged=(dtype, len(judged), sum(not outcome.left_out for outcome in judged)),
        left_out=dict(Counter(outcome.left_out for outcome in outcomes if outcome.left_out)),
    )


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The table as lines of text."""
    yield f"{'operator':<18}{'generated':>10}{'counted':>9}{'run':>7}{'failed':>8}   judged          left out"
    for row in rows:
        dtype, counted, run = row.judged
        judged = f"{run}/{counted} {dtype}{'' if row.enough else ' TOO FEW'}"
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(row.left_out.items())) or "-"
        numbers = f"{row.generated:>10}{row.counted:>9}{row.run:>7}{row.failed:>8}"
        yield f"{row.operator:<18}{numbers}   {judged:<15} {reasons}"
    sums = [sum(getattr(row, name) for row in rows) for name in ("generated", "counted", "run", "failed")]
    yield f"{'all':<18}{sums[0]:>10}{sums[1]:>9}{sums[2]:>7}{sums[3]:>8}"


if __name__ == "__main__":
    main()
