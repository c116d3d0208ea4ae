"""The README's tutorial, run once for all tests: real commands, in order, on a tiny generated data set."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import asdict, frozen

ROOT = Path(__file__).parent.parent
CONFIG = "keypoint_efficientnetb0_carfusion"

#: What makes the shipped config small enough for a test.
SMALL = ("num_epochs=1", "batch_size_per_gpu=8", "calibration_step=2", "num_workers=0", "image_size=(64,64)")
TINY_DATA = ("--frames-train", "10", "--frames-test", "4", "--size", "640x360", "--difficulty", "easy")
#: One thread a process is the fast choice beside parallel tests.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "120"}


@frozen
class Done:
    """One command that was run."""

    args: list[str]
    status: int
    stdout: str
    stderr: str
    json: Any


@frozen
class Workflow:
    """The folder in which the tutorial was typed, and every command's outcome by name."""

    dir: Path
    done: Mapping[str, Done]
    config: str = CONFIG
    #: Overrides that every command with a config was given.
    settings: tuple[str, ...] = SMALL

    @property
    def options(self) -> list[str]:
        return [part for setting in self.settings for part in ("--opts", setting)]

    @property
    def models(self) -> Path:
        return self.dir / "tmp_models" / CONFIG


def tutorial_commands() -> list[list[str]]:
    """The lines of the README's tutorial, without ``carkp``."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The tutorial")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [shlex.split(line)[1:] for line in block[1].splitlines()]


def command_name(args: list[str]) -> str:
    """``train float``, ``carfusion-packer test``, ``calops``."""
    values = [args[args.index(option) + 1] for option in ("--stage", "--split-name") if option in args]
    return " ".join([args[0], *values])


def run_command(args: list[str], cwd: Path) -> Done:
    """Run ``carkp`` as a process of its own, with ``--json``."""
    answer = cwd / "answer.json"
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "carkp_core", *args, "--json", answer.name]
    result = subprocess.run(command, cwd=cwd, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    payload = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else None
    return Done(args, result.returncode, result.stdout, result.stderr, payload)


@pytest.fixture(scope="session")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The tutorial's outcome. Parallel test workers share one run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tutorial"
    with _locked(folder.with_suffix(".lock")):
        record = folder / "record.json"
        if not record.exists():
            folder.mkdir()
            done = _run_tutorial(folder, Workflow(folder, {}).options)
            record.write_text(json.dumps({name: asdict(item) for name, item in done.items()}), encoding="utf-8")
        read = json.loads(record.read_text(encoding="utf-8"))
    return Workflow(folder, {name: Done(**item) for name, item in read.items()})


def _run_tutorial(folder: Path, options: list[str]) -> dict[str, Done]:
    done: dict[str, Done] = {}
    for args in tutorial_commands():
        extra = list(TINY_DATA) if args[0] == "synth-carfusion" else options if "--config" in args else []
        if args[0] == "infer":
            shutil.copy(next((folder / "cropped" / "test").rglob("*.jpg")), folder / "car.jpg")
        done[command_name(args)] = run_command([*args, *extra], folder)
    return done


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
