from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from npu_toys import ToyBackend, toy_plugins

from carkp_core.backend import Backend, CompileOptions, CompileResult
from carkp_core.ir.graph import Graph
from carkp_core.plugins import module_plugin, plugin_manager
from carkp_core.testing import CheckFailed, check_backend

torch.set_num_threads(1)


class Silent(ToyBackend):
    def check(self, graph: Graph, march: str) -> Any:
        return attrs.evolve(super().check(graph, march), violations=())


class Hasty(ToyBackend):
    def check(self, graph: Graph, march: str) -> Any:
        report = super().check(graph, march)
        return attrs.evolve(report, violations=(), nodes=tuple(attrs.evolve(n, verdict="NPU") for n in report.nodes))


class Clocked(ToyBackend):
    count = 0

    def compile(self, graph: Graph, options: CompileOptions) -> CompileResult:
        type(self).count += 1
        return attrs.evolve(super().compile(graph, options), sha256=str(self.count))


class Trusting(ToyBackend):
    def load_program(self, path: Path) -> Any:
        try:
            return super().load_program(path)
        except Exception:
            return None


class Dark(ToyBackend):
    def camera_input(self, image_rgb: np.ndarray, march: str) -> np.ndarray:
        return super().camera_input(image_rgb // 2, march)


class Mute(ToyBackend):
    estimate = None  # type: ignore[assignment]


class Old(ToyBackend):
    def run_program(self, program: Any, inputs: Any) -> Any:  # type: ignore[override]
        return {}


def plugins(backend: type[ToyBackend]) -> Any:
    record = Backend("odd", ("odd-1",), f"{__name__}:{backend.__name__}")
    manager = plugin_manager(load_installed=False)
    manager.add("odd", "odd 1.0", lambda: module_plugin(carkp_backends=lambda: [record]))
    return manager


def test_a_sound_backend():
    check_backend("toy-1", toy_plugins())


def test_a_program_with_wrong_numbers():
    with pytest.raises(CheckFailed, match="the program for toy-faulty differs from the reference executor"):
        check_backend("toy-faulty", toy_plugins())


@pytest.mark.parametrize(
    ("backend", "what"),
    [
        (Silent, "is refused without a violation"),
        (Hasty, "an operator without integer form is accepted"),
        (Clocked, "compiling twice gives other bytes"),
        (Trusting, "half of a program is loaded"),
        (Dark, "camera_input turns grey 200 into"),
        (Mute, "there is no method 'estimate'"),
        (Old, r"run_program cannot be called with \(program, inputs, taps\)"),
    ],
)
def test_each_broken_promise_is_found(backend, what):
    with pytest.raises(CheckFailed, match=what):
        check_backend("odd-1", plugins(backend))


def test_a_march_that_nobody_offers():
    with pytest.raises(CheckFailed, match="no installed package offers march 'mars'"):
        check_backend("mars", toy_plugins())
