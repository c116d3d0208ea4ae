"""The graph simulator against ONNX Runtime's int8, where its time goes, and how it starts. Needs onnxruntime.

The shipped network at 128x128 with random weights, one line for each batch and number of threads. ONNX Runtime runs
the same network, statically quantized in QDQ form with uint8 and with int8 activations; the faster one counts as 1.0.
Runs of the three alternate, and a line gives the ratio of the medians, with that of the least times beside it. Then
the share of time per kind of layer; the rate of the matrix products, gathering and rescaling included, against the best
that ``torch._int_mm`` reaches on large squares, on one thread, in turns; and the first batch of a process, imports
apart, with an empty cache of kernels and with the one that it left.
"""

from __future__ import annotations

import collections
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

CONFIG, MARCH = "keypoint_efficientnetb0_carfusion", "bayes"
SIZE = 128
#: Runs of a batch of 32 for each line, and ten times as many of one image; rounds of profiles and squares.
REPEATS, ROUNDS = 12, 6
SQUARES = (512, 1024, 2048)


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


def ratios(graph: Any, forms: list[Path]) -> Iterator[str]:
    """One line for each number of threads and batch."""
    from carkp_bpu.simulator.graph import simulate

    integers = np.random.default_rng(0).integers(-128, 128, (32, 3, SIZE, SIZE), dtype=np.int8)
    reals = (integers / 128).astype(np.float32)
    for threads in (1, 2):
        executor = simulate(graph, threads)
        for batch in (32, 1):
            runners: dict[str, Callable[[], Any]] = {"carkp": partial(executor, {"img": integers[:batch]})}
            runners |= {form.stem: onnx_runner(form, threads, reals[:batch]) for form in forms}
            times = alternate(runners, REPEATS * (1 if batch > 1 else 10))
            median = {name: statistics.median(values) for name, values in times.items()}
            best = min((name for name in times if name != "carkp"), key=median.__getitem__)
            shown = ", ".join(f"{name} {1e3 * min(values) / batch:.2f}" for name, values in times.items())
            ratio = median[best] / median["carkp"]
            least = min(min(times[form.stem]) for form in forms) / min(times["carkp"])
            yield (
                f"threads {threads} batch {batch:2}: {ratio:.2f} x ONNX Runtime ({best}); {least:.2f} of the least "
                f"times, ms per image: {shown}"
            )


def shares(graph: Any) -> Iterator[str]:
    """Where a slice's time goes on one thread, and how fast the products are."""
    import torch

    from carkp_bpu.simulator.graph import profile, simulate

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    executor = simulate(graph, 1)
    seconds: dict[str, float] = {}
    peak = 0.0
    for _ in range(ROUNDS):
        costs = profile(executor, repeats=3)
        seconds = {cost.node: min(cost.seconds, seconds.get(cost.node, cost.seconds)) for cost in costs}
        peak = max(peak, *map(square_rate, SQUARES))
    torch.set_num_threads(before)
    by_kind: dict[str, float] = collections.defaultdict(float)
    for cost in costs:
        by_kind[cost.kind] += seconds[cost.node]
    parts = sorted(by_kind.items(), key=lambda item: -item[1])
    yield "share of time: " + ", ".join(f"{kind} {part / sum(by_kind.values()):.0%}" for kind, part in parts)
    dense = [cost for cost in costs if cost.macs and not cost.kind.startswith("depthwise")]
    rate = 2e-9 * sum(cost.macs for cost in dense) / sum(seconds[cost.node] for cost in dense)
    yield f"products: {rate:.0f} GOP/s, {rate / peak:.2f} of the {peak:.0f} that torch._int_mm reaches on a square"


def square_rate(side: int) -> float:
    """GOP/s of torch's int8 matrix multiply at its best."""
    import torch

    left, right = (torch.randint(-128, 128, (side, side), dtype=torch.int8) for _ in range(2))
    out = torch.empty((side, side), dtype=torch.int32)
    times = alternate({"square": lambda: torch._int_mm(left, right, out=out)}, 3 * 2048 // side)["square"]
    return 2e-9 * side**3 / min(times)


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
#: Seconds that a first batch may take, with an empty cache and with a warm one.
EMPTY_S, WARM_S = 15.0, 1.5


def cold_starts(graph: Any, folder: Path) -> Iterator[str]:
    """The first batch of a process."""
    from carkp_core.ir.binary import write

    write(graph, folder / "model.ir")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-c", COLD, str(folder / "model.ir")]
    found = [
        float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
        for _ in range(4)
    ]
    empty, warm = found[0], min(found[1:])
    yield f"cold start, first run ever: {empty:.2f} s, {empty / EMPTY_S:.2f} of {EMPTY_S:.0f} s"
    yield f"cold start, warm cache: {warm:.2f} s, {warm / WARM_S:.2f} of {WARM_S} s"


def run() -> Iterator[str]:
    """All lines."""
    graph = random_graph()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from ratios(graph, write_onnx(folder))
        yield from shares(graph)
        yield from cold_starts(graph, folder)


if __name__ == "__main__":
    for line in run():
        print(line, flush=True)
