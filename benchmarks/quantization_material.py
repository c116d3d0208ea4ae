"""What the comparison of quantizers works on: generated cars, float models trained on them, a way to measure.

Everything slow is kept in a folder and used again: frames, crops, LMDB, and each seed's float model.

Legend: ``N`` images, ``H W`` 64 x 64 pixels.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn

from carkp_carfusion.data.crop import crop_dataset
from carkp_carfusion.data.pack import pack_split
from carkp_carfusion.data.synth.generate import SynthSpec, generate
from carkp_carfusion.metrics import KeypointReport
from carkp_core.commands.train import train_stage
from carkp_core.session import Session, open_session
from carkp_core.train.checkpoint import load_state, read_checkpoint

CONFIG = "quickstart"
FRAMES_TRAIN, FRAMES_TEST, FRAME_SIZE_WH, DIFFICULTY = 800, 480, (640, 360), "normal"
FLOAT_EPOCHS, BATCH = 14, 32
CALIBRATION_IMAGES = 256
#: Of the calibration images, those that carkp's observers don't see: choices and repairs are measured on them.
HELD_BACK_IMAGES = 64

Predict = Callable[[Tensor], Tensor]


@frozen
class Score:
    """One way's result. PCK are fractions, ``mean_dist`` input pixels; ``peak_mb`` is what the process grew by."""

    pck: Mapping[str, float]
    mean_dist: float
    seconds: float
    peak_mb: float
    #: What else is worth a line.
    note: str = ""


@frozen(eq=False)
class Material:
    """A float model of one seed, and the images that every way gets."""

    session: Session
    network: nn.Module
    example: dict[str, Tensor]
    calibration: Tensor  # [N, 3, H, W], as the network sees them
    test: Tensor
    truth: dict[str, Any]


def make_data(folder: Path) -> None:
    """Draw, crop and pack, unless that was done."""
    packed = folder / "packed"
    if (packed / "test_lmdb").exists() and (packed / "train_lmdb").exists():
        return
    generate(folder / "raw", SynthSpec(FRAMES_TRAIN, FRAMES_TEST, FRAME_SIZE_WH, DIFFICULTY), 1)
    crop_dataset(folder / "raw", folder / "cropped", 1)
    for split in ("train", "test"):
        pack_split(folder / "cropped", packed, split, 1)


def seed_session(folder: Path, seed: int) -> Session:
    """The shipped small config on this data; ``seed`` is that of weights, order and augmentation."""
    opts = (
        f"data_root={folder / 'packed'}",
        f"ckpt_dir={folder / f'float-{seed}'}",
        f"seed={seed}",
        f"num_epochs={FLOAT_EPOCHS}",
        f"batch_size_per_gpu={BATCH}",
        "val_callback.val_interval=7",
    )
    return open_session(CONFIG, opts)


def material(folder: Path, seed: int) -> Material:
    """Train the float model unless it stands there; read the images. The seed also draws the calibration images."""
    session = seed_session(folder, seed)
    path = session.context.checkpoint("float")
    if not path.exists():
        in_child(lambda: train_stage(session.for_stage("float")))
    network, example = session.deploy()
    state = read_checkpoint(path)["model"]
    load_state(network, {name.removeprefix("network."): value for name, value in state.items()}, where=str(path))
    datasets = [_dataset(session, name) for name in ("calibration_data_loader", "val_data_loader")]
    chosen = np.random.default_rng(seed).permutation(len(datasets[0]))[:CALIBRATION_IMAGES]
    test = [datasets[1][i] for i in range(len(datasets[1]))]
    truth = {key: torch.stack([torch.as_tensor(s[key]) for s in test]) for key in ("gt_ldmk", "gt_ldmk_attr")}
    return Material(
        session,
        network.eval(),
        example,
        torch.stack([datasets[0][int(i)]["img"] for i in chosen]),
        torch.stack([sample["img"] for sample in test]),
        truth,
    )


def score(given: Material, make: Callable[[Material], Predict | tuple[Predict, str]], batch: int = 64) -> Score | str:
    """Quantize in a process of its own and evaluate there; a string says why it could not be done.

    Time and memory are those of quantizing alone.
    """

    def work() -> Score:
        before_kb, started = _peak_kb(), time.monotonic()
        made = make(given)
        seconds, grown_kb = time.monotonic() - started, _peak_kb() - before_kb
        predict, note = made if isinstance(made, tuple) else (made, "")
        values = evaluate(given, predict, batch)
        return Score({k: v for k, v in values.items() if k.startswith("PCK")}, values["mean_dist"], seconds,
                     grown_kb / 1024, note)  # fmt: skip

    try:
        return in_child(work)  # type: ignore[no-any-return]
    except RuntimeError as error:
        return str(error).strip().splitlines()[-1]


def evaluate(given: Material, predict: Predict, batch: int = 64) -> dict[str, float]:
    """Every metric of the report over the test images, decoded as the config says."""
    decoder: Any = given.session.recipe(given.session.config["model"]["post_process"], "post_process").build()
    stride = given.test.shape[-1] // predict(given.test[:batch]).shape[-1]
    report = KeypointReport(stride, tuple(given.test.shape[-2:]), decoder, (0.02, 0.05, 0.1))
    with torch.no_grad():
        for start in range(0, len(given.test), batch):
            part = {key: value[start : start + batch] for key, value in given.truth.items()}
            report.update(part, predict(given.test[start : start + batch]))
    return report.compute()


def in_child(work: Callable[[], Any]) -> Any:
    """The result of a function, run in a forked process. Raises RuntimeError with its traceback's text."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)

    def main() -> None:
        torch.set_num_threads(1)
        try:
            sender.send((True, work()))
        except BaseException:  # the parent says what it was
            sender.send((False, traceback.format_exc()))

    child = fork.Process(target=main)
    child.start()
    sender.close()
    try:
        done, result = receiver.recv()
    except EOFError:
        done, result = False, "the process ended without an answer"
    child.join()
    if not done:
        raise RuntimeError(result)
    return result


def _peak_kb() -> int:
    """The greatest resident size since the process began; a forked one begins with its parent's pages."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _dataset(session: Session, loader: str) -> Any:
    return session.recipe(session.config[loader]["dataset"], f"{loader}.dataset").build()
