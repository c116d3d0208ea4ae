"""TOSA's own tests, generated, run through its reference model and written as programs. In ``tosa-tools``' environment.

``python -m conformance.generate FOLDER`` leaves ``FOLDER/<operator>/<test>/program.json`` and the tensors beside it.
"""

# ruff: noqa: T201 - a script prints what it did

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from conformance import reference_model
from conformance.program import save

#: TOSA's operators, those that take longest first, and the seeds of their tests: more seeds where a run makes few.
SEEDS: dict[str, tuple[int, ...]] = {
    "depthwise_conv2d": (42,),
    "rescale": (42,),
    "transpose_conv2d": (42,),
    "avg_pool2d": (42,),
    "pad": (42,),
    "conv2d": (42, 43),
    "max_pool2d": (42,),
    "mul": (42, 43),
    "slice": (42,),
    "reshape": (42,),
    "resize": (42, 43, 44, 45),
    "concat": (42, 43),
    "transpose": (42,),
    "table": (42, 43, 44, 45),
    "clamp": (42, 43, 44, 45),
    "add": (42, 43, 44, 45),
    "sub": (42, 43, 44, 45),
}

#: Positive tests of the integer profile and its int16 extension, all zero points 0.
_OPTIONS = (
    *("--profile", "tosa-pro-int", "--extension", "tosa-ext-int16", "--test-type", "positive", "--zero-point", "0"),
    *("--target-dtype", "int8", "int16", "int32"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate every operator's tests, some at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--operators", nargs="*", default=list(SEEDS), choices=list(SEEDS))
    options = parser.parse_args(arguments)
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = {pool.submit(generate, name, options.folder / name): name for name in options.operators}
        for job in as_completed(jobs):
            print(f"{jobs[job]}: {job.result()} tests", flush=True)


def generate(operator: str, folder: Path) -> int:
    """Write an operator's tests as programs; returns how many."""
    shutil.rmtree(folder, ignore_errors=True)
    count = 0
    for seed in SEEDS[operator]:
        with tempfile.TemporaryDirectory() as scratch:
            chosen = ("--filter", f"^{operator}$", "--seed", str(seed), "-o", scratch)
            # As a script: with -m from here, this folder would stand before the tools' own package of the same name.
            command = (str(Path(sys.executable).with_name("tosa_verif_build_tests")), *_OPTIONS, *chosen)
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
            for test in sorted(Path(scratch).glob("*/*/desc.json")):
                program = reference_model.read_test(test.parent)
                save(program, folder / f"{program.name}_seed{seed}")
                count += 1
    return count


if __name__ == "__main__":
    main()
