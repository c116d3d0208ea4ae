"""What a config leaves out, derived from what it says. Pure functions on config dicts; nothing is built here."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from carkp_core.config.located import LocatedDict
from carkp_core.stages import PREDICTORS, TRAINERS

Node = dict[str, Any]


def type_name(node: Any) -> str:
    """The last part of a recipe's ``type``, whatever form it has; empty for anything else."""
    if not isinstance(node, dict):
        return ""
    target = node.get("type", "")
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    return str(name).replace(":", ".").rpartition(".")[2]


def trainer_node(config: Node, stage: str) -> Node | None:
    """The trainer of a stage as the config gives it, int_infer's derived from the quantized stages'."""
    for name in TRAINERS[stage]:
        if config.get(name) is not None:
            return config[name]  # type: ignore[no-any-return]
    if stage == "int_infer" and config.get("calibration_trainer") is not None:
        return integer_trainer(config, "calibration")
    return None


def integer_trainer(config: Node, source: str) -> Node:
    """int_infer's trainer: the source stage's structure, its best checkpoint, then the conversion; no training."""
    trained = trainer_node(config, source)
    assert trained is not None
    node = LocatedDict(trained)
    for key in ("optimizer", "data_loader", "num_steps", "log_interval"):
        node.pop(key, None)
    converters = [*structural_converters(trained), {"type": "LoadStage", "stage": source}, {"type": "QAT2Quantize"}]
    changes = {"type": "IntegerTrainer", "model_convert_pipeline": _pipeline(trained, converters)}
    dict.update(node, changes)
    keep = ("type", "model", "model_convert_pipeline", "batch_processor", "callbacks", "val_metrics", "device")
    return LocatedDict({key: node[key] for key in keep if key in node})


def predictor_node(config: Node, stage: str) -> Node | None:
    """The predictor of a stage: the config's, else one derived from the trainer."""
    for name in PREDICTORS[stage]:
        if config.get(name) is not None:
            return config[name]  # type: ignore[no-any-return]
    trainer = trainer_node(config, stage)
    if trainer is None:
        return None
    validation = find_validation(trainer)
    if stage == "int_infer":
        converters: list[Any] = [{"type": "LoadIntegerModel"}]
    else:
        converters = [*structural_converters(trainer), {"type": "LoadStage", "stage": stage}]
    node = LocatedDict(
        type="Predictor",
        model=trainer.get("model", config.get("model")),
        model_convert_pipeline=_pipeline(trainer, converters),
        data_loader=(validation or {}).get("data_loader", config.get("val_data_loader")),
        batch_processor=(validation or {}).get("batch_processor", config.get("val_batch_processor")),
        metrics=trainer.get("val_metrics", []),
    )
    if trainer.get("device") is not None:
        node["device"] = trainer["device"]
    return node


def structural_converters(trainer: Node) -> list[Node]:
    """A trainer's converters without those that load weights."""
    pipeline = trainer.get("model_convert_pipeline") or {}
    converters = pipeline.get("converters", ()) if isinstance(pipeline, dict) else pipeline
    return [c for c in converters if not type_name(c).startswith("Load")]


def _pipeline(trainer: Node, converters: list[Any]) -> Node:
    pipeline = trainer.get("model_convert_pipeline")
    node = LocatedDict(pipeline) if isinstance(pipeline, dict) else LocatedDict(type="ModelConvertPipeline")
    dict.__setitem__(node, "converters", converters)
    return node


def find_validation(trainer: Node | None) -> Node | None:
    """The ``Validation`` callback of a trainer, or None."""
    for callback in (trainer or {}).get("callbacks") or ():
        if type_name(callback) == "Validation":
            return callback  # type: ignore[no-any-return]
    return None


def validation_loader(config: Node) -> Node | None:
    """The loader of validation data: a trainer's ``Validation`` callback's, else ``val_data_loader``."""
    for stage in TRAINERS:
        validation = find_validation(trainer_node(config, stage) if stage != "int_infer" else None)
        if validation and isinstance(validation.get("data_loader"), dict):
            return validation["data_loader"]  # type: ignore[no-any-return]
    loader = config.get("val_data_loader")
    return loader if isinstance(loader, dict) else None


def validation_transforms(config: Node) -> list[Node]:
    """The transforms of the validation data, as written."""
    dataset = (validation_loader(config) or {}).get("dataset")
    transforms = dataset.get("transforms") if isinstance(dataset, dict) else None
    return list(transforms or ())


def network_input_hw(config: Node) -> tuple[int, int] | None:
    """Height and width that the validation transforms deliver: the last ``size`` or ``img_scale``."""
    found = None
    for transform in validation_transforms(config):
        size = transform.get("size", transform.get("img_scale")) if isinstance(transform, dict) else None
        if isinstance(size, int):
            size = (size, size)
        if isinstance(size, (tuple, list)) and len(size) == 2:
            found = (int(size[0]), int(size[1]))
    return found


def pixel_scale(config: Node) -> float | None:
    """The value of one integer step when the input is ``(pixel - 128) / std``: 1 / std. None for other inputs."""
    for transform in validation_transforms(config):
        if type_name(transform) == "Normalize" and transform.get("mean") == 128:
            std = transform.get("std")
            if isinstance(std, (int, float)) and std > 0:
                return 1.0 / float(std)
    return None


def deploy_node(config: Node) -> Node | None:
    """The deployed model: ``deploy_model``, else ``model`` without loss and post-process."""
    if config.get("deploy_model") is not None:
        return config["deploy_model"]  # type: ignore[no-any-return]
    model = config.get("model")
    if not isinstance(model, dict):
        return None
    node = copy.copy(model)
    for key in ("loss", "post_process"):
        node.pop(key, None)
    return node


def every_recipe(value: Any, path: str) -> Iterator[tuple[str, Node]]:
    """All dicts with ``type`` in a config value, with their key paths."""
    if isinstance(value, dict):
        if "type" in value:
            yield path, value
        for key, item in value.items():
            yield from every_recipe(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from every_recipe(item, f"{path}[{index}]")
