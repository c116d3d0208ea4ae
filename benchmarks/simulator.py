"""Measure the graph simulator against ONNX Runtime on this machine: ``python benchmarks/simulator.py [--quick]``.

The shipped network at 128x128 with random weights, one line for each batch and number of threads. ONNX Runtime runs
the same network, statically quantized in QDQ form with uint8 and with int8 activations; the faster one counts as 1.0.
Runs of the three alternate, and a line gives the ratio of the medians, with the least times beside it. Then the share
of time per kind of layer, the rate of the matrix products against ``torch._int_mm`` on a large square, and the cold
start, in processes of their own: with an empty cache of kernels, and with the one that it left. Needs onnxruntime.
"""

from __future__ import annotations

import argparse
import collections
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

CONFIG, MARCH = "keypoint_efficientnetb0_carfusion", "bayes"
SIZE = 128


def random_graph() -> Any:
    """The shipped network as an integer model with random weights."""
    from carkp_core.session import open_session

    return open_session(CONFIG, [], MARCH).fast_graph()


def write_onnx(folder: Path) -> list[Path]:
    """The same network for ONNX Runtime, in its two QDQ forms with weights quantized per channel."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from carkp_core.export.onnx_float import export_float
    from carkp_core.session import open_session

    session = open_session(CONFIG, [], MARCH)
    network, inputs = session.deploy()
    model = export_float(network, inputs, opset=17, context=session.context)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    name = model.graph.input[0].name

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = 3

        def get_next(self) -> dict[str, Any] | None:
            self.left -= 1
            rng = np.random.default_rng(self.left + 1)
            return {name: rng.uniform(-1, 1, (4, 3, SIZE, SIZE)).astype(np.float32)} if self.left >= 0 else None

    onnx.save(model, folder / "float.onnx")
    quant_pre_process(str(folder / "float.onnx"), str(folder / "prepared.onnx"))
    found = []
    for label, kind in (("uint8", QuantType.QUInt8), ("int8", QuantType.QInt8)):
        found.append(folder / f"{label}.onnx")
        quantize_static(
            str(folder / "prepared.onnx"), str(found[-1]), Samples(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=kind, weight_type=QuantType.QInt8,
        )  # fmt: skip
    return found


def onnx_runner(path: Path, threads: int, images: np.ndarray) -> Callable[[], Any]:
    """A call that runs the batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images}
    return lambda: session.run(None, feed)


def alternate(runners: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call; the calls take turns, so that all meet the same load."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(repeats + 1):
        for name, run in runners.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def print_ratios(graph: Any, forms: list[Path], quick: bool) -> None:
    """One line for each number of threads and batch."""
    from carkp_bpu.simulator.graph import simulate

    integers = np.random.default_rng(0).integers(-128, 128, (32, 3, SIZE, SIZE), dtype=np.int8)
    reals = (integers / 128).astype(np.float32)
    for threads in (1, 2):
        executor = simulate(graph, threads)
        for batch in (32, 1):
            runners: dict[str, Callable[[], Any]] = {"carkp": partial(executor, {"img": integers[:batch]})}
            runners |= {form.stem: onnx_runner(form, threads, reals[:batch]) for form in forms}
            times = alternate(runners, (5 if quick else 20) * (1 if batch > 1 else 10))
            median = {name: statistics.median(values) for name, values in times.items()}
            best = min((name for name in times if name != "carkp"), key=median.__getitem__)
            shown = ", ".join(f"{name} {1e3 * min(values) / batch:.2f}" for name, values in times.items())
            ratio, least = median[best] / median["carkp"], min(times[best]) / min(times["carkp"])
            print(f"threads {threads} batch {batch:2}: {ratio:.2f} x ONNX Runtime ({best}); {least:.2f} of the least "
                  f"times, ms per image: {shown}")  # fmt: skip


def print_shares(graph: Any, quick: bool) -> None:
    """Where a slice's time goes, and how fast the products are."""
    import torch

    from carkp_bpu.simulator.graph import profile, simulate

    torch.set_num_threads(1)
    costs = profile(simulate(graph, 1), repeats=3 if quick else 15)
    total = sum(cost.seconds for cost in costs)
    by_kind: dict[str, float] = collections.defaultdict(float)
    for cost in costs:
        by_kind[cost.kind] += cost.seconds
    for kind, seconds in sorted(by_kind.items(), key=lambda item: -item[1]):
        print(f"{kind:24} {seconds / total:6.1%}")
    dense = [cost for cost in costs if cost.macs and not cost.kind.startswith("depthwise")]
    rate = 2e-9 * sum(c.macs for c in dense) / sum(c.seconds for c in dense)
    side = 1024 if quick else 2048
    left, right = (torch.randint(-128, 128, (side, side), dtype=torch.int8) for _ in range(2))
    square = min(alternate({"square": lambda: torch._int_mm(left, right)}, 5)["square"])
    peak = 2e-9 * side**3 / square
    print(f"products, all included: {rate:.0f} GOP/s, {rate / peak:.2f} of torch._int_mm's {peak:.0f} on a square")


#: Its argument is an integer model's file; prints the seconds of the first batch, imports and model apart.
COLD = """
import sys, time
import numpy as np
from carkp_bpu.simulator.graph import simulate
from carkp_core.ir.binary import read
graph = read(sys.argv[1])
start = time.perf_counter()
simulate(graph, 1)({"img": np.zeros((32, 3, 128, 128), np.int8)})
print(time.perf_counter() - start)
"""


def print_cold_starts(graph: Any, folder: Path) -> None:
    """The first batch of a process, twice."""
    from carkp_core.ir.binary import write

    write(graph, folder / "model.ir")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-c", COLD, str(folder / "model.ir")]
    for label in ("first run ever", "warm cache"):
        answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        print(f"cold start, {label}: {float(answer):.2f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    quick = parser.parse_args().quick
    graph = random_graph()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print_ratios(graph, write_onnx(folder), quick)
        print_shares(graph, quick)
        print_cold_starts(graph, folder)
        print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
