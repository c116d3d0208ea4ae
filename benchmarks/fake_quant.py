"""Time of the fake-quantized network beside the float one: evaluation, and a training step.

Run ``python -m benchmarks fake_quant``. Integer-exact fake quantization costs more than the usual kind; this holds the
cost: at most 3 times the float evaluation, at most 2.5 times the float training step, 3 with learned scales, for int8
at 128 x 128 pixels. All run in the memory layout that the trainer uses, on one thread, in turns; the least processor
time of each counts, which a busy machine disturbs least.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.one_answer import calibrated
from benchmarks.shipped_networks import car_images, shipped_network

CONFIG = "keypoint_efficientnetb0_carfusion"
BATCH = 32
EVALUATION_LIMIT, TRAINING_LIMIT, LEARNING_LIMIT = 3.0, 2.5, 3.0


def run(rounds: int = 5) -> Iterable[str]:
    """A line for evaluation and one for training."""
    torch.set_num_threads(1)
    shipped = shipped_network(CONFIG)
    images = car_images(BATCH, shipped.size_hw).to(memory_format=torch.channels_last)
    floats = shipped.network.to(memory_format=torch.channels_last)
    quantized = calibrated(shipped, images).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        times = in_turns([lambda: floats(images), lambda: quantized(images)], rounds)
    yield _line("evaluation", times, EVALUATION_LIMIT)
    learning = copy.deepcopy(quantized)
    learning.learn_scales()
    steps = [training_step(network.train(), images) for network in (floats, quantized, learning)]
    times = in_turns(steps, rounds)
    yield _line("training step", times[:2], TRAINING_LIMIT)
    yield _line("training step with learned scales", [times[0], times[2]], LEARNING_LIMIT)


def training_step(network: nn.Module, images: Tensor) -> Callable[[], None]:
    """A step of SGD on random maps."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9)

    def step() -> None:
        heatmaps = network(images)
        optimizer.zero_grad()
        F.mse_loss(heatmaps, torch.zeros_like(heatmaps)).backward()
        optimizer.step()

    return step


def in_turns(runs: list[Callable[[], object]], rounds: int) -> list[float]:
    """The least processor seconds of each, after one round that doesn't count."""
    best = [float("inf")] * len(runs)
    for round_number in range(rounds + 1):
        for index, once in enumerate(runs):
            start = time.process_time()
            once()
            if round_number:
                best[index] = min(best[index], time.process_time() - start)
    return best


def _line(what: str, seconds: list[float], limit: float) -> str:
    floats, quantized = seconds
    return (
        f"fake_quant: {what} of int8 fake quantization takes {quantized / floats:.2f} times the float model's"
        f" (at most {limit}; {1e3 * quantized / BATCH:.1f} and {1e3 * floats / BATCH:.1f} ms an image)"
    )


if __name__ == "__main__":
    for line in run():
        print(line, flush=True)
