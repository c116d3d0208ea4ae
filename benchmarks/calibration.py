"""Observing a network during calibration against the float forward of the same batches, one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks.shipped_networks import car_images, shipped_network
from benchmarks.stopwatch import best_seconds
from carkp_core.quant.observers import OBSERVERS
from carkp_core.quant.prepare import prepare

CONFIG = "keypoint_efficientnetb0_carfusion"
BATCH, BATCHES, ROUNDS = 16, 3, 2
#: A fixed scale looks at nothing.
COMPARED = [name for name in OBSERVERS if name != "fixed_scale"]


def run() -> Iterator[str]:
    """A line for each observer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shipped = shipped_network(CONFIG)
    images = car_images(BATCH * BATCHES, shipped.size_hw).split(BATCH)
    quantized = prepare(shipped.network, shipped.inputs, context=shipped.context).eval()

    def float_forward() -> None:
        with torch.no_grad():
            for batch in images:
                shipped.network(batch)

    def calibration(name: str) -> Callable[[], None]:
        def observed() -> None:
            quantized.start_observing(OBSERVERS[name])
            for batch in images:
                quantized(batch)
            quantized.finish_observing()

        return observed

    seconds = best_seconds({"float": float_forward} | {name: calibration(name) for name in COMPARED}, ROUNDS)
    torch.set_num_threads(threads)
    per_image_ms = {name: 1e3 * value / (BATCH * BATCHES) for name, value in seconds.items()}
    for name in COMPARED:
        yield (
            f"{name}: {seconds[name] / seconds['float']:.2f} times the float forward "
            f"({per_image_ms[name]:.2f} and {per_image_ms['float']:.2f} ms an image, {BATCHES} batches of {BATCH})"
        )
