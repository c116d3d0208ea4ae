"""Count the elements in which a fake-quantized network and its integer model differ. Every count must be 0.

Run ``python -m benchmarks.one_answer [IMAGES]``. For the quickstart's network and the full one, both on the ImageNet
trunk: calibrate, convert, run both on generated pictures; then the same after a few steps of QAT, in each of its modes,
and with an int16 output. The march's simulator runs all images, the reference executor the first few, and every tensor
counts, not only the outputs. The exit status is 1 when an element differs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.shipped_networks import ShippedNetwork, car_images, shipped_network
from carkp_core.ir import reference
from carkp_core.ir.arithmetic import quantize
from carkp_core.ir.graph import Graph
from carkp_core.quant.convert import convert
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.observers import Percentile
from carkp_core.quant.prepare import prepare
from carkp_core.quant.settings import QAT_MODES, quant_settings

IMAGES, BATCH = 200, 20
#: Images that the slow reference executor runs.
REFERENCE_IMAGES = 4
CALIBRATION_BATCHES, QAT_STEPS, QAT_BATCH = 2, 6, 8


def run(images: int = IMAGES) -> Iterable[str]:
    """One line for each network and stage."""
    yield from (line for line, _ in answers(images))


def answers(images: int) -> Iterator[tuple[str, int]]:
    """A line for each network and stage, and its count of differing elements."""
    quickstart = shipped_network("quickstart")
    pictures = car_images(images, quickstart.size_hw)
    for mode in QAT_MODES:
        yield from _stages(quickstart, pictures, mode, "int8")
    full = shipped_network("keypoint_efficientnetb0_carfusion")
    pictures = car_images(images, full.size_hw)
    for dtype in ("int8", "int16"):
        yield from _stages(full, pictures, "fuse_bn", dtype)


def _stages(shipped: ShippedNetwork, images: Tensor, mode: str, dtype: str) -> Iterator[tuple[str, int]]:
    network = calibrated(shipped, images[: CALIBRATION_BATCHES * BATCH], mode, dtype)
    trunk = "" if shipped.pretrained else " with random weights"
    title = f"{shipped.config}{trunk}, {mode}, {dtype} output"
    yield _counted(f"{title}: calibrated", shipped, network, images)
    train(network, images)
    yield _counted(f"{title}: after QAT", shipped, network, images)


def calibrated(
    shipped: ShippedNetwork, images: Tensor, mode: str = "fuse_bn", output_dtype: str = "int8"
) -> QuantizedNetwork:
    """The network, calibrated on these images."""
    scales = dict(shipped.context.input_scales)
    network = prepare(
        shipped.network, shipped.inputs, context=shipped.context, settings=quant_settings(mode), input_scales=scales
    ).eval()
    for name in network.output_names:
        network.layer(name).dtype = output_dtype
    network.start_observing(Percentile)
    for batch in images.split(BATCH):
        network(batch)
    network.finish_observing()
    return network


def train(network: QuantizedNetwork, images: Tensor) -> None:
    """A few steps towards random maps: enough to move every weight."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    for step in range(QAT_STEPS):
        batch = images[torch.arange(step * QAT_BATCH, (step + 1) * QAT_BATCH) % len(images)]
        heatmaps = network(batch)
        target = torch.rand(heatmaps.shape, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        F.mse_loss(heatmaps, target).backward()
        optimizer.step()
    network.eval()


def _counted(title: str, shipped: ShippedNetwork, network: QuantizedNetwork, images: Tensor) -> tuple[str, int]:
    graph = convert(network, shipped.config)
    differing, total = differing_elements(network, graph, shipped, images)
    notes = network.quant_notes()
    dead = sum("dead" in note for said in notes.values() for note in said)
    line = (
        f"{title}: {differing} of {total:,} elements differ over {len(images)} images,"
        f" {len(graph.nodes)} layers ({len(notes)} with notes, {dead} with dead channels)"
    )
    return line, differing


def differing_elements(
    network: QuantizedNetwork, graph: Graph, shipped: ShippedNetwork, images: Tensor
) -> tuple[int, int]:
    """Elements of all tensors that differ from the simulator's or the reference executor's, and all elements."""
    names = [node.name for node in graph.nodes]
    declared = graph.inputs[0].type
    simulate = shipped.context.backend().simulate(graph)
    differing = total = 0
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        integers = quantize(batch.numpy(), declared.scale, declared.dtype)
        with torch.no_grad():
            got = network.integer_values([batch], names)
        results = [simulate({"img": integers}, names)]
        if start == 0:
            results.append(reference.execute(graph, {"img": integers[:REFERENCE_IMAGES]}, names))
        for expected in results:
            for name in names:
                count = len(expected[name])
                differing += int((got[name].values[:count].numpy() != expected[name]).sum())
                total += expected[name].size
    return differing, total


def main(arguments: list[str]) -> int:
    """Print the lines as they come; 1 when an element differs."""
    found = 0
    for line, differing in answers(int(arguments[0]) if arguments else IMAGES):
        print(line, flush=True)
        found += differing
    return int(found > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
