"""What a report is about: a stage's quantized network, with the data and the metrics of its predictor.

A config without any quantized stage is calibrated on the spot: the float stage's best checkpoint on the report's own
samples, with the calibration trainer's observer where there is one, or, where there is no more than a
``deploy_model``, its weights as they are on random inputs. Notes say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from torch import nn

from carkp_core import derive
from carkp_core.context import Context
from carkp_core.errors import ConfigError
from carkp_core.quant.converters import deployed
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.prepare import prepare
from carkp_core.quant.settings import QuantSettings, observer_factory, quant_settings
from carkp_core.session import Session
from carkp_core.stages import TRAINERS
from carkp_core.train.processors import MultiBatchProcessor
from carkp_core.train.seeding import seeded
from carkp_core.train.trainer import as_list

#: Stages that a report can be of. ``float`` is calibrated on the spot.
REPORT_STAGES = ("calibration", "qat", "float")
#: What the report calls a deployed network that no stage has trained.
UNTRAINED = "deploy_model"


@frozen(eq=False)
class Source:
    """A quantized network in evaluation mode, and what to run it on.

    ``model`` is the task model that held it; ``data`` what the config says of a loader, None for random inputs.
    """

    stage: str
    model: nn.Module
    network: QuantizedNetwork
    data: Any
    processor: Any
    metrics: Sequence[Any]
    device: Any
    #: The observer's name, where the network does not keep its choices.
    observer: str
    #: The checkpoints that were loaded: path, sha256 and stage of each.
    checkpoints: Sequence[dict[str, str]] = ()
    #: The scales are to be calibrated first, on the data of the report.
    uncalibrated: bool = False
    #: Of the first metric.
    lower_is_better: bool = False
    notes: tuple[str, ...] = ()


def open_source(session: Session, stage: str | None = None) -> Source:
    """Open a stage's network.

    Parameters
    ----------
    stage:
        One of ``REPORT_STAGES``. By default QAT's if it was trained from the present calibration, else calibration's,
        else float's, else the deployed network as the config builds it.

    Raises
    ------
    ConfigError
        When the config has no such stage, or its model is not quantized.
    CheckpointError
        When the stage was not run yet.
    """
    if stage is not None and derive.predictor_node(session.config, stage) is None:
        raise ConfigError(
            f"the config has no stage {stage!r}",
            where=str(session.context.config_path),
            remedy=f"assign {TRAINERS[stage][0]} in it, or report on another stage",
        )
    stage = stage or _best_stage(session)
    if stage == UNTRAINED:
        return _untrained(session)
    predictor = session.for_stage(stage).predictor(stage)
    pipeline = predictor.model_convert_pipeline
    model = (pipeline(predictor.model) if pipeline else predictor.model).eval()
    network = deployed(model)
    settings = _calibration_settings(session) if stage == "float" else _settings(pipeline)
    if stage == "float":
        network = _prepared(session, network, settings)
    if not isinstance(network, QuantizedNetwork):
        raise ConfigError(
            f"the {stage} predictor's model is not quantized",
            where=f"{stage}_predictor",
            seen=type(network).__name__,
            remedy="put Float2Calibration or Float2QAT into its model_convert_pipeline",
        )
    return Source(
        stage=stage,
        model=model,
        network=network.eval(),
        data=predictor.loaders[0] or _training_data(session, stage),
        processor=predictor.batch_processor,
        metrics=predictor.own_metrics,
        device=predictor.device,
        observer=settings.calibration_observer if stage != "qat" else settings.qat_observer or "calibration's",
        checkpoints=getattr(pipeline, "sources", []),
        uncalibrated=stage == "float",
        lower_is_better=_lower_is_better(session, stage, predictor.own_metrics),
        notes=(_on_the_spot(settings),) if stage == "float" else (),
    )


def _best_stage(session: Session) -> str:
    config = session.config
    if derive.predictor_node(config, "calibration") is not None:
        return session.integer_source()
    for stage in ("qat", "float"):
        if derive.predictor_node(config, stage) is not None:
            return stage
    return UNTRAINED


def _untrained(session: Session) -> Source:
    with seeded(session.context.seed):
        network, _ = session.deploy()
    return Source(
        stage=UNTRAINED,
        model=network,
        network=_prepared(session, network, QuantSettings()).eval(),
        data=None,
        processor=MultiBatchProcessor(need_grad_update=False),
        metrics=(),
        device=None,
        observer=QuantSettings().calibration_observer,
        uncalibrated=True,
        notes=("the config has no data: random inputs, on which activations say little and weights all they can",),
    )


def _prepared(session: Session, network: nn.Module, settings: QuantSettings) -> QuantizedNetwork:
    """Quantized, with the observer of calibration."""
    context: Context = session.context
    made = prepare(network, session.deploy_inputs(), context=context, input_scales=context.input_scales)
    made.default_observer = observer_factory(
        settings.calibration_observer, settings.calibration_kwargs, context.catalog
    )
    return made


def _calibration_settings(session: Session) -> QuantSettings:
    """What the calibration trainer's config says of observers; the defaults without one."""
    pipeline = (derive.trainer_node(session.config, "calibration") or {}).get("model_convert_pipeline")
    return quant_settings(None, pipeline.get("qconfig_params") if isinstance(pipeline, dict) else None)


def _on_the_spot(settings: QuantSettings) -> str:
    """How the float stage is calibrated, for people."""
    return (
        "the float network, calibrated on the samples of this report with the observer "
        f"{settings.calibration_observer} and no repairs"
    )


def _settings(pipeline: Any) -> QuantSettings:
    given = getattr(pipeline, "qconfig_params", None)
    return quant_settings(getattr(pipeline, "qat_mode", None), given)


def _lower_is_better(session: Session, stage: str, metrics: Sequence[Any]) -> bool:
    """Of the first metric: what the stage's ``Checkpoint`` says if it monitors that one, else what the metric says."""
    values, owner = next(((values, metric) for metric in metrics if (values := metric.compute())), ({}, None))
    trainer = derive.trainer_node(session.config, stage) or {}
    predictor = derive.predictor_node(session.config, stage) or {}
    same_first = as_list(trainer.get("val_metrics"))[:1] == as_list(predictor.get("metrics"))[:1]
    for callback in trainer.get("callbacks") or ():
        if derive.type_name(callback) == "Checkpoint" and "mode" in callback:
            key = callback.get("monitor_metric_key")
            if (key is None and same_first) or (key is not None and key == next(iter(values), None)):
                return bool(callback["mode"] == "min")
    return bool(getattr(owner, "lower_is_better", False))


def _training_data(session: Session, stage: str) -> Any:
    """The stage's training data, for a config without validation data."""
    node = derive.trainer_node(session.config, stage)
    recipe = None if node is None else session.recipe(node, TRAINERS[stage][0]).child("data_loader")
    if recipe is None:
        raise ConfigError(
            "the config has no data to report on",
            where=str(session.context.config_path),
            allowed="val_data_loader, or the stage trainer's data_loader",
        )
    return recipe
