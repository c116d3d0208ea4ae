"""Run benchmarks: ``python -m benchmarks [NAME ...]``, all but those that train without a name.

``NAME=ARGUMENT`` hands a benchmark what its own page asks for, such as a folder.

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
    "quantization": "what carkp, ONNX Runtime and torchao lose on three trained networks",
    "compile": "compile time, and DDR bytes over the least possible",
}
#: Only run by name: they train for an hour.
LONG = ("quantization",)


def main(wanted: list[str]) -> int:
    """Run the named benchmarks and return the exit status."""
    arguments = dict(_named(text) for text in wanted or BENCHMARKS if wanted or text not in LONG)
    unknown = [name for name in arguments if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are:", file=sys.stderr)
        print("\n".join(f"  {name:<14} {what}" for name, what in BENCHMARKS.items()), file=sys.stderr)
        return 2
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, argument in arguments.items():
        print(f"\n{name}: {BENCHMARKS[name]} (load {os.getloadavg()[0]:.1f})", flush=True)
        started = time.monotonic()
        for line in importlib.import_module(f"benchmarks.{name}").run(*argument):
            print(f"  {line}", flush=True)
        print(f"  [{time.monotonic() - started:.0f} s]")
    return 0


def _named(text: str) -> tuple[str, list[str]]:
    name, _, argument = text.partition("=")
    return name, [argument] if argument else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
