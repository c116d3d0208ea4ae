"""Everything core itself offers, through the same hooks as a third party's parts."""

from __future__ import annotations

from collections.abc import Iterable

from carkp_core.catalog import Component
from carkp_core.commands import Command
from carkp_core.hookspecs import hookimpl
from carkp_core.operator import Operator
from carkp_core.quant.operator_list import OPERATORS

COMMANDS = (
    Command("calops", "carkp_core.commands.calops:calops", "Count a network's MACs and parameters."),
    Command("train", "carkp_core.commands.train:train", "Train a stage: float, calibration, qat or int_infer."),
    Command("predict", "carkp_core.commands.predict:predict", "Evaluate a stage on the validation data."),
    Command("infer", "carkp_core.commands.infer:infer", "Draw a model's answer on images."),
    Command("model-checker", "carkp_core.commands.model_checker:model_checker", "Check that an NPU runs a network."),
    Command("compile-perf", "carkp_core.commands.compile_perf:compile_perf", "Compile and estimate performance."),
    Command("align-bpu-validation", "carkp_core.commands.align:align", "Validate the compiled program bit for bit."),
    Command("compare", "carkp_core.commands.compare:compare", "Compare two forms of a model layer by layer."),
    Command("quant-report", "carkp_core.commands.quant_report:quant_report", "Say which layer quantization hurts."),
    Command("export-onnx", "carkp_core.commands.export_onnx:export_onnx", "Export a model to ONNX."),
    Command("plugins", "carkp_core.commands.plugins:plugins", "List plugins and their problems."),
    Command("plugin", "carkp_core.commands.plugin_new:plugin", "Write a plugin's package: carkp plugin new NAME."),
    Command("config", "carkp_core.commands.config:config", "Show, check or copy a config."),
)

COMPONENTS = (
    Component("trainer", "Trainer", "carkp_core.train.trainer:Trainer"),
    Component(
        "trainer", "distributed_data_parallel_trainer", "carkp_core.train.trainer:distributed_data_parallel_trainer"
    ),
    Component("trainer", "Calibrator", "carkp_core.train.calibrator:Calibrator"),
    Component("trainer", "IntegerTrainer", "carkp_core.train.integer:IntegerTrainer"),
    Component("trainer", "Predictor", "carkp_core.train.predictor:Predictor"),
    Component("batch_processor", "MultiBatchProcessor", "carkp_core.train.processors:MultiBatchProcessor"),
    Component("loss_collector", "collect_loss_by_index", "carkp_core.train.processors:collect_loss_by_index"),
    Component("loss_collector", "collect_loss_by_regex", "carkp_core.train.processors:collect_loss_by_regex"),
    Component("collate", "default_collate", "carkp_core.train.collate:default_collate"),
    Component("metric", "LossShow", "carkp_core.train.metrics:LossShow"),
    Component("metric", "update_metric", "carkp_core.train.metrics:update_metric"),
    Component("metric", "update_loss", "carkp_core.train.metrics:update_loss"),
    Component("callback", "Checkpoint", "carkp_core.train.callbacks.checkpoint:Checkpoint"),
    Component("callback", "Validation", "carkp_core.train.callbacks.validation:Validation"),
    Component("callback", "StatsMonitor", "carkp_core.train.callbacks.stats_monitor:StatsMonitor"),
    Component("callback", "MetricUpdater", "carkp_core.train.callbacks.metric_updater:MetricUpdater"),
    Component("callback", "GradScale", "carkp_core.train.callbacks.grad_scale:GradScale"),
    Component("callback", "FreezeQuantization", "carkp_core.train.callbacks.freeze_quantization:FreezeQuantization"),
    Component("callback", "TensorBoard", "carkp_core.train.callbacks.tensorboard:TensorBoard"),
    Component("schedule", "CosLrUpdater", "carkp_core.train.schedules:CosLrUpdater"),
    Component("schedule", "PolyLrUpdater", "carkp_core.train.schedules:PolyLrUpdater"),
    Component("schedule", "StepDecayLrUpdater", "carkp_core.train.schedules:StepDecayLrUpdater"),
    Component("optimizer", "AdamW", "torch.optim:AdamW"),
    Component("optimizer", "Adam", "torch.optim:Adam"),
    Component("optimizer", "SGD", "torch.optim:SGD"),
    Component("converter", "ModelConvertPipeline", "carkp_core.train.convert:ModelConvertPipeline"),
    Component("converter", "LoadCheckpoint", "carkp_core.train.load_checkpoint:LoadCheckpoint"),
    Component("converter", "LoadStage", "carkp_core.train.load_checkpoint:LoadStage"),
    Component("converter", "LoadIntegerModel", "carkp_core.quant.converters:LoadIntegerModel"),
    Component("converter", "Float2Calibration", "carkp_core.quant.converters:Float2Calibration"),
    Component("converter", "Float2QAT", "carkp_core.quant.converters:Float2QAT"),
    Component("converter", "QAT2Quantize", "carkp_core.quant.converters:QAT2Quantize"),
    Component("repair", "CrossLayerEqualization", "carkp_core.quant.repair.equalize:CrossLayerEqualization"),
    Component("repair", "BiasCorrection", "carkp_core.quant.repair.bias_correction:BiasCorrection"),
    Component("repair", "AdaRound", "carkp_core.quant.repair.adaround:AdaRound"),
    Component("repair", "Int16", "carkp_core.quant.repair.int16:Int16"),
    Component("repair", "AutoInt16", "carkp_core.quant.repair.auto_int16:AutoInt16"),
)


@hookimpl
def carkp_commands() -> Iterable[Command]:
    return COMMANDS


@hookimpl
def carkp_operators() -> Iterable[Operator]:
    return OPERATORS


@hookimpl
def carkp_components() -> Iterable[Component]:
    return COMPONENTS
