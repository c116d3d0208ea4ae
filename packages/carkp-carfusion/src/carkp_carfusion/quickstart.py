"""The whole workflow on generated data: the same functions that the commands call, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from carkp_core.errors import BackendError

if TYPE_CHECKING:
    from carkp_core.plugins import PluginManager
    from carkp_core.session import Session

CONFIG = "quickstart"
#: What is drawn: enough large, mostly unoccluded cars for a small network to learn from in a minute or two.
FRAMES_TRAIN, FRAMES_TEST, FRAME_SIZE_WH, DIFFICULTY = 280, 60, (640, 360), "easy"
#: Test crops on which the integer model's answer is drawn.
PICTURES = 8

Say = Callable[[str], None]


@frozen
class QuickstartResult:
    """What the run found, and where its pictures and reports are."""

    seconds: float
    #: float, calibration, int_infer and hbm: PCK@0.1 (a fraction) and mean_dist (input pixels).
    stages: Mapping[str, Mapping[str, float]]
    differing_elements: int
    latency_ms: float
    fps: float
    step_seconds: Mapping[str, float]
    files: Mapping[str, Path] = field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fixed machine-readable form, with the seconds of each step and the files."""
        names = ("seconds", "stages", "differing_elements", "latency_ms", "fps", "step_seconds", "files")
        return {name: getattr(self, name) for name in names}


@frozen
class _Clock:
    """Seconds of each step, by name, and how to tell the user of it."""

    say: Say
    seconds: dict[str, float] = field(factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.say(f"{len(self.seconds) + 1:>2}. {name}")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)


def run_quickstart(
    out: Path, *, plugins: PluginManager, seed: int = 0, num_workers: int = 1, say: Say = lambda _: None
) -> QuickstartResult:
    """Run every step below ``out``.

    Parameters
    ----------
    out:
        The folder for data, checkpoints, pictures and reports; made if missing. What an interrupted run of the same
        seed has drawn, cropped and packed is used again.
    plugins:
        The plugin manager, for configs and the backend.
    seed:
        Seed of the data and of training.
    num_workers:
        Processes that draw, crop and pack.
    say:
        Told of each step as it starts.

    Raises
    ------
    CarkpError
        When a step cannot be done; its message says why.
    """
    from carkp_core.session import open_session

    started = time.monotonic()
    clock = _Clock(say)
    files = _make_data(out, seed, num_workers, clock)
    session = open_session(CONFIG, _overrides(out, seed), plugins=plugins)
    files |= _before_training(session, clock)
    stages = _train(session, out, clock, files)
    performance, differing, stages["hbm"] = _compile_and_validate(session, clock, files)
    _show(session, out, clock, files)
    return QuickstartResult(
        round(time.monotonic() - started, 1),
        stages,
        differing,
        performance.latency_ms,
        performance.fps,
        clock.seconds,
        files,
    )


def _overrides(out: Path, seed: int) -> tuple[str, ...]:
    return (f"data_root={out / 'packed'}", f"ckpt_dir={out / 'models'}", f"seed={seed}")


def _make_data(out: Path, seed: int, num_workers: int, clock: _Clock) -> dict[str, Path]:
    """Draw, crop and pack; a sheet of each."""
    from carkp_carfusion.commands.view import save_sheet
    from carkp_carfusion.data.crop import crop_dataset
    from carkp_carfusion.data.gallery import open_galleries
    from carkp_carfusion.data.pack import pack_split
    from carkp_carfusion.data.synth.generate import SynthSpec, generate

    raw, cropped, packed = out / "raw", out / "cropped", out / "packed"
    with clock.step(f"draw {FRAMES_TRAIN + FRAMES_TEST} frames of cars on the generator's {DIFFICULTY} setting"):
        generate(raw, SynthSpec(FRAMES_TRAIN, FRAMES_TEST, FRAME_SIZE_WH, DIFFICULTY, seed), num_workers)
    with clock.step("crop the cars"):
        crop_dataset(raw, cropped, num_workers)
    with clock.step("pack them into LMDB"):
        for split in ("train", "test"):
            pack_split(cropped, packed, split, num_workers)
    files: dict[str, Path] = {}
    for kind, folder in (("frames", raw), ("crops", cropped)):
        (gallery,) = open_galleries(folder, "train")
        files[f"{kind} with keypoints"] = out / f"{kind}.png"
        save_sheet(gallery, files[f"{kind} with keypoints"], seed=seed)
    return files


def _before_training(session: Session, clock: _Clock) -> dict[str, Path]:
    """Is the network one that the march runs?"""
    with clock.step(f"check the untrained network for march {session.context.march}"):
        report = session.context.backend().check(session.fast_graph(), session.context.march)
    if not report.ok:
        raise BackendError(
            f"march {session.context.march!r} does not run the network",
            seen=f"{len(report.violations)} violations",
            remedy=f"run `carkp model-checker --config {CONFIG}`",
        )
    return {}


def _train(session: Session, out: Path, clock: _Clock, files: dict[str, Path]) -> dict[str, Mapping[str, float]]:
    """Float, calibration, int_infer; the float model's worst samples."""
    from carkp_core.commands.predict import predict_stage
    from carkp_core.commands.train import train_stage

    stages: dict[str, Mapping[str, float]] = {}
    titles = {
        "float": "train the float model",
        "calibration": "calibrate: fold batch norm, find the scales",
        "int_infer": "convert to the integer model",
    }
    for stage, title in titles.items():
        with clock.step(title):
            stages[stage] = _two_metrics(train_stage(session.for_stage(stage)))
    with clock.step("evaluate the integer model, draw the worst samples"):
        files["worst samples"] = out / "worst.png"
        predict_stage(session.for_stage("int_infer"), out / "predictions.jsonl", files["worst samples"])
        files["predictions"] = out / "predictions.jsonl"
    curves = sorted((session.context.ckpt_dir / "runs").glob("float-*/curves.png"))
    if curves:
        files["training curves"] = curves[-1]
    return stages


def _compile_and_validate(
    session: Session, clock: _Clock, files: dict[str, Path]
) -> tuple[Any, int, Mapping[str, float]]:
    from carkp_core.alignment import align_validation
    from carkp_core.programs import compile_session

    with clock.step("compile, estimate performance"):
        compiled = compile_session(session)
    if compiled.hbm is not None:
        files["program"] = compiled.hbm
    files |= {f"performance ({path.suffix[1:]})": path for path in compiled.reports}
    with clock.step("validate the compiled program on the camera's input"):
        aligned = align_validation(session)
    return compiled.performance, aligned.differing_elements, _two_metrics(aligned.metrics["hbm"])


def _show(session: Session, out: Path, clock: _Clock, files: dict[str, Path]) -> None:
    """Export to ONNX and draw the integer model's answers on test crops."""
    from carkp_core.commands.export_onnx import export_session
    from carkp_core.inference import infer_images

    with clock.step("export to ONNX"):
        for stage in ("float", "int_infer"):
            files[f"ONNX, {stage}"] = export_session(session, stage).path
    with clock.step("draw answers on test crops"):
        crops = sorted((out / "cropped" / "test").rglob("*.jpg"))
        infer_images(session, crops[:: max(1, len(crops) // PICTURES)][:PICTURES], out / "drawn")
        files["drawn answers"] = out / "drawn"


def _two_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(metrics[name]) for name in ("PCK@0.1", "mean_dist")}
