"""Prediction end to end, as ``carkp predict --stage int_infer`` does it, against its two stages alone; its memory.

The shipped network with random weights over generated crops, which are repeated to a large test set. Loading (read,
decode, transform, collate) and simulating (the integer model, decoding of its maps, metrics) are timed alone, each with
the processes and threads that it has in the whole, before and after it; the better time of each counts.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import torch

from carkp_carfusion.data.crop import crop_dataset
from carkp_carfusion.data.pack import pack_split
from carkp_carfusion.data.synth.generate import SynthSpec, generate
from carkp_core.quant.converters import integer_network, replaced
from carkp_core.session import Session, open_session
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.environment import plain_environment
from carkp_core.train.evaluation import may_overlap
from carkp_core.train.loaders import LoaderPlan, open_loader
from carkp_core.train.predictor import Predictor

CONFIG, FRAMES = "keypoint_efficientnetb0_carfusion", 12
IMAGES, ALONE = 20_000, 1_500
#: Batches after which everything has its final size, and batches between looks at the memory.
SETTLED, LOOK = 60, 10
#: Batches that simulating alone goes through again and again.
READY = 8


@attrs.frozen
class Repeated:
    """A data set gone through again and again, up to ``count`` samples."""

    dataset: Any
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.replay(index, 0)

    def replay(self, index: int, epoch: int) -> Any:
        """The sample, with its own number."""
        return {**self.dataset.replay(index % len(self.dataset), epoch), "index": index}


class Watch(Callback):
    """Notes the time after every batch, and the memory now and then."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.bytes: list[int] = []

    def on_evaluated(self, evaluated: Any) -> None:
        """Note them."""
        self.seconds.append(time.perf_counter())
        if len(self.seconds) > SETTLED and len(self.seconds) % LOOK == 0:
            self.bytes.append(memory_bytes())


def memory_bytes() -> int:
    """Memory of this process and its workers, without that of mapped files."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    total = 0
    for process in ("self", *children):
        status = Path(f"/proc/{process}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) << 10 for line in status if line.startswith(("RssAnon", "RssShmem")))
    return total


def run() -> Iterator[str]:
    """A line of speed and a line of memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder / "raw", SynthSpec(frames_train=1, frames_test=FRAMES, size=(1280, 720)), 2)
        crop_dataset(folder / "raw", folder / "cropped", 1)
        pack_split(folder / "cropped", folder / "packed", "test", 1)
        threads = torch.get_num_threads()
        session = open_session(CONFIG, [f"data_root={folder / 'packed'}"], stage="int_infer", threads=threads)
        yield from _lines(session, threads)


def _lines(session: Session, threads: int) -> Iterator[str]:
    predictor, watch = _predictor(session), Watch()
    predictor.callbacks = (watch,)
    alone: dict[str, list[float]] = {"loading": [], "simulating": []}
    for turn in range(2):
        if turn:
            predictor.predict()
        alone["loading"].append(_loading(predictor))
        alone["simulating"].append(_simulating(predictor))
    batches = len(watch.seconds) - 1 - SETTLED
    rate = predictor.loaders[0].batch_size * batches / (watch.seconds[-1] - watch.seconds[SETTLED])
    best = {stage: max(rates) for stage, rates in alone.items()}
    slower = min(best, key=best.__getitem__)
    shown = ", ".join(f"{stage} {value:.0f}" for stage, value in best.items())
    yield (
        f"end to end {rate:.0f} images/s, {rate / best[slower]:.2f} of {slower} alone, the slower stage "
        f"(alone: {shown}; {threads} threads on {os.cpu_count()} cores)"
    )
    quarter = len(watch.bytes) // 4
    early, late = statistics.median(watch.bytes[:quarter]), statistics.median(watch.bytes[-quarter:])
    yield (
        f"memory over {IMAGES} images: {late / 2**20:.0f} MiB with its loaders in the last quarter, "
        f"{(late - early) / 2**20:+.1f} MiB since the first"
    )


def _predictor(session: Session) -> Predictor:
    config, context = session.config, session.context
    model = session.recipe(config["model"], "model").build()
    model = replaced(model, integer_network(session.fast_graph(), context)).eval()
    plan = LoaderPlan.of(session.recipe(config["val_data_loader"], "val_data_loader"), context)
    plan = attrs.evolve(plan, dataset=Repeated(plan.dataset, IMAGES))
    metrics = [session.recipe(node, "val_metrics").build() for node in config["val_metrics"]]
    return Predictor(model, plan, metrics=metrics, context=context)


def _batches(predictor: Predictor, count: int) -> Iterator[Any]:
    (plan,) = predictor.loaders
    with plain_environment(predictor.context) as environment:
        own_threads = may_overlap(predictor.model, predictor.batch_processor)
        loader = open_loader(plan, environment, training=False, own_threads=own_threads)
        yield from islice(loader.epoch(0), count)


def _loading(predictor: Predictor) -> float:
    """Images per second of the loader alone."""
    batches = _batches(predictor, ALONE // predictor.loaders[0].batch_size)
    next(batches)
    started, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch["img"])
    return count / (time.perf_counter() - started)


def _simulating(predictor: Predictor) -> float:
    """Images per second of everything else, on batches that lie ready."""
    ready = list(_batches(predictor, READY))
    images = sum(len(raw["img"]) for raw in ready)
    seconds = []
    for _ in range(ALONE // images + 2):
        started = time.perf_counter()
        for raw in ready:
            batch, output = predictor.batch_processor.evaluate(predictor.model, raw)
            for metric in predictor.metrics:
                metric.update(batch, output)
        seconds.append(time.perf_counter() - started)
    return images / min(seconds[1:])


if __name__ == "__main__":
    for line in run():
        print(line)
