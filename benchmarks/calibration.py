"""Calibration with each observer against the float forward of the same batches, one thread.

Batches go through the float network and through a network under each observer in turns, so a disturbance hits all.
Fixing the scales at the end counts, and for ``mix`` so does comparing its candidates on the held-back batches.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.shipped_networks import car_images, shipped_network
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.observers import OBSERVERS
from carkp_core.quant.output_error import sliced
from carkp_core.quant.prepare import prepare

CONFIG = "keypoint_efficientnetb0_carfusion"
BATCH, BATCHES, HELD_BACK = 16, 100, 4
#: Different images; the batches repeat them.
IMAGES = 8 * BATCH
LIMIT = 1.5


def run() -> Iterator[str]:
    """A line for each observer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shipped = shipped_network(CONFIG)
    # As the calibrator feeds them.
    images = car_images(IMAGES + HELD_BACK * BATCH, shipped.size_hw).contiguous(memory_format=torch.channels_last)
    network = shipped.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepared = prepare(network, shipped.inputs, context=shipped.context).eval()
    observed = {name: copy.deepcopy(prepared) for name in OBSERVERS}
    batches, held_back = images[:IMAGES].split(BATCH), images[IMAGES:].split(BATCH)

    seconds = dict.fromkeys(["float", *observed], 0.0)
    finishing = dict.fromkeys(observed, 0.0)
    for name, each in observed.items():
        each.start_observing(OBSERVERS[name])
    with torch.no_grad():
        for number in range(-1, BATCHES):
            batch = batches[number % len(batches)]
            for name, run_on in {"float": network, **observed}.items():
                spent = _seconds(run_on, batch)
                seconds[name] += spent if number >= 0 else 0.0  # the first one warms up
    for name, each in observed.items():
        finishing[name] = _seconds(_finish, each, held_back)
    torch.set_num_threads(threads)
    for name in observed:
        ratio = (seconds[name] + finishing[name]) / seconds["float"]
        extra = f" and comparing candidates on {HELD_BACK} held-back batches" if name == "mix" else ""
        yield (
            f"{name}: {ratio:.2f} times the float forward of {BATCHES} batches of {BATCH}"
            f" (observing {seconds[name] / seconds['float']:.2f}, fixing scales{extra} {finishing[name]:.1f} s)"
            + (f", limit {LIMIT}" if name == "percentile" else "")
        )


def _finish(network: QuantizedNetwork, held_back: tuple[Tensor, ...]) -> None:
    network.finish_observing(batches=sliced((batch,) for batch in held_back))


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started
