"""Run benchmarks: ``python -m benchmarks [NAME ...]``, all of them without a name.

Each prints lines with a ratio against a peer or a limit that was measured in the same run. Only ratios carry over to
another machine, and a busy machine bends even them: the load is printed beside.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time

#: Name of the module -> what is measured.
BENCHMARKS = {
    "data_pipeline": "samples against decoding their JPEGs alone",
    "trainer": "the training loop against a plain torch loop",
    "calibration": "observing against the float forward of the same batches",
    "fake_quant": "fake quantization against the float model",
    "one_answer": "elements in which quantized networks and their integer models differ",
    "simulator": "the graph simulator against ONNX Runtime's int8, where its time goes, and how it starts",
    "predict": "prediction end to end against its slower stage alone, and its memory",
    "machine": "the machine simulator, guards included, against the graph simulator",
    "compile": "compile time, and DDR bytes over the least possible",
}


def main(names: list[str]) -> int:
    """Run the named benchmarks and return the exit status."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are:", file=sys.stderr)
        print("\n".join(f"  {name:<14} {what}" for name, what in BENCHMARKS.items()), file=sys.stderr)
        return 2
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name in names or BENCHMARKS:
        print(f"\n{name}: {BENCHMARKS[name]} (load {os.getloadavg()[0]:.1f})", flush=True)
        started = time.monotonic()
        for line in importlib.import_module(f"benchmarks.{name}").run():
            print(f"  {line}", flush=True)
        print(f"  [{time.monotonic() - started:.0f} s]")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
