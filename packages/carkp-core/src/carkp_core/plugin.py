"""Everything core itself offers, through the same hooks as a third party's parts."""

from __future__ import annotations

from collections.abc import Iterable

from carkp_core.catalog import Component
from carkp_core.commands import Command
from carkp_core.hookspecs import hookimpl

COMMANDS = (
    Command("calops", "carkp_core.commands.calops:calops", "Count a network's MACs and parameters."),
    Command("train", "carkp_core.commands.train:train", "Train a stage: float, calibration, qat or int_infer."),
    Command("predict", "carkp_core.commands.predict:predict", "Evaluate a stage on the validation data."),
    Command("infer", "carkp_core.commands.infer:infer", "Draw a model's answer on images."),
    Command("model-checker", "carkp_core.commands.model_checker:model_checker", "Check that an NPU runs a network."),
    Command("compile-perf", "carkp_core.commands.compile_perf:compile_perf", "Compile and estimate performance."),
    Command("align-bpu-validation", "carkp_core.commands.align:align", "Validate the compiled program bit for bit."),
    Command("export-onnx", "carkp_core.commands.export_onnx:export_onnx", "Export a model to ONNX."),
    Command("plugins", "carkp_core.commands.plugins:plugins", "List plugins and their problems."),
    Command("config", "carkp_core.commands.config:config", "Show, check or copy a config."),
)


@hookimpl
def carkp_commands() -> Iterable[Command]:
    return COMMANDS


@hookimpl
def carkp_components() -> Iterable[Component]:
    return ()
