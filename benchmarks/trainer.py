"""carkp's training loop against a plain torch loop: the same model, optimizer, batches and thread."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from carkp_core.session import Session, open_session
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.state import Training
from carkp_core.train.trainer import Trainer

CONFIG = "keypoint_efficientnetb0_carfusion"
BATCH, WARM_UP, STEPS, ROUNDS = 16, 2, 6, 3


class Pictures(Dataset[Any]):
    """Ready samples in memory, so that only the loop is measured."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._img = torch.randn(BATCH, 3, 128, 128, generator=generator)
        self._heatmap = torch.rand(BATCH, 12, 32, 32, generator=generator)

    def __len__(self) -> int:
        return BATCH * (WARM_UP + STEPS)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        img, heatmap = self._img[index % BATCH], self._heatmap[index % BATCH]
        return {"img": img, "gt_heatmap": heatmap, "gt_heatmap_weight": torch.ones_like(heatmap)}


class Clock(Callback):
    """Seconds between the end of the warm-up and the last step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, training: Training, result: Any) -> None:
        self.ends.append(time.perf_counter())

    @property
    def seconds_a_step(self) -> float:
        return (self.ends[-1] - self.ends[WARM_UP - 1]) / STEPS


def run() -> Iterator[str]:
    """One line."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = {"carkp": float("inf"), "plain": float("inf"), "plain, channels last": float("inf")}
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(CONFIG, (f"ckpt_dir={folder}",), stage="float")
        for _ in range(ROUNDS):
            best["carkp"] = min(best["carkp"], _carkp(session))
            best["plain"] = min(best["plain"], _plain(session, torch.contiguous_format))
            best["plain, channels last"] = min(best["plain, channels last"], _plain(session, torch.channels_last))
    torch.set_num_threads(threads)
    rates = {name: BATCH / seconds for name, seconds in best.items()}
    yield (
        f"batch {BATCH} at 128x128, one thread: {rates['carkp']:.1f} images/s, "
        f"{rates['carkp'] / rates['plain']:.2f} of a plain loop ({rates['plain']:.1f}), "
        f"{rates['carkp'] / rates['plain, channels last']:.2f} of a plain loop with channels last "
        f"({rates['plain, channels last']:.1f})"
    )


def _carkp(session: Session) -> float:
    clock = Clock()
    trainer = Trainer(
        session.build("model"),
        DataLoader(Pictures(), batch_size=BATCH),
        lambda params: torch.optim.AdamW(params, lr=1e-3),
        num_steps=WARM_UP + STEPS,
        callbacks=[clock],
        context=session.context,
    )
    trainer.fit()
    return clock.seconds_a_step


def _plain(session: Session, layout: torch.memory_format) -> float:
    model = session.build("model").train().to(memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ends = []
    for batch in itertools.islice(DataLoader(Pictures(), batch_size=BATCH), WARM_UP + STEPS):
        batch["img"] = batch["img"].contiguous(memory_format=layout)
        optimizer.zero_grad(set_to_none=True)
        _, loss = model(batch)
        loss.backward()
        optimizer.step()
        loss.item()
        ends.append(time.perf_counter())
    return (ends[-1] - ends[WARM_UP - 1]) / STEPS
