"""What a config may choose: ``qat_mode`` and ``qconfig_params`` of a ``ModelConvertPipeline``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from carkp_core.config.values import argument_hints, described, fits
from carkp_core.errors import ConfigError
from carkp_core.quant.observers import OBSERVERS, Observer
from carkp_core.quant.ranges import RangeFollower

#: How QAT treats batch norm: folded before training, or kept beside the weights with the batch's statistics in
#: training and the running ones folded in evaluation. ``with_bn_reverse_fold`` quantizes the folded weights in
#: training as well, ``with_bn`` the unfolded ones.
QAT_MODES = ("fuse_bn", "with_bn", "with_bn_reverse_fold")

#: In place of an observer, in QAT: scales are parameters (LSQ).
LEARNED = "learned"

_WEIGHT_OBSERVERS = {"weight_calibration_observer": ("min_max",), "weight_qat_observer": ("min_max", LEARNED)}


@frozen
class QuantSettings:
    """Observers and the QAT mode."""

    qat_mode: str = "fuse_bn"
    calibration_observer: str = "percentile"
    calibration_kwargs: Mapping[str, Any] = field(factory=dict)
    #: None keeps the calibrated scales in QAT, ``LEARNED`` trains them, an observer lets them follow the ranges.
    qat_observer: str | None = None
    qat_kwargs: Mapping[str, Any] = field(factory=dict)
    #: ``min_max`` takes a channel's scale from its weights, ``LEARNED`` trains it.
    weight_qat_observer: str = "min_max"


_KEYS = (
    "activation_calibration_observer",
    "activation_calibration_qkwargs",
    "activation_qat_observer",
    "activation_qat_qkwargs",
    "weight_calibration_observer",
    "weight_calibration_qkwargs",
    "weight_qat_observer",
    "weight_qat_qkwargs",
)


def quant_settings(qat_mode: str | None = None, qconfig_params: Mapping[str, Any] | None = None) -> QuantSettings:
    """Settings from what the config says.

    Raises
    ------
    ConfigError
        An unknown mode or key, a value of another type, or an observer that weights cannot have; names what is allowed.
    """
    mode = "fuse_bn" if qat_mode is None else qat_mode
    if mode not in QAT_MODES:
        where = "model_convert_pipeline.qat_mode"
        raise ConfigError(f"unknown qat_mode {mode!r}", where=where, allowed=", ".join(QAT_MODES))
    params = _mapping({} if qconfig_params is None else qconfig_params, "model_convert_pipeline.qconfig_params")
    for key, value in params.items():
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            raise ConfigError(
                f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
                where="model_convert_pipeline.qconfig_params",
                allowed=", ".join(_KEYS),
            )
        where = f"model_convert_pipeline.qconfig_params.{key}"
        if value is not None and key.endswith("_qkwargs"):
            _mapping(value, where)
        elif value is not None and not isinstance(value, str):
            raise ConfigError("an observer is named by a text", where=where, seen=repr(value), allowed="'min_max', say")
    for key, allowed in _WEIGHT_OBSERVERS.items():
        if (params.get(key) or "min_max") not in allowed:
            raise ConfigError(
                f"weights cannot have the observer {params[key]!r}",
                where=f"model_convert_pipeline.qconfig_params.{key}",
                allowed=", ".join(allowed),
            )
    return QuantSettings(
        mode,
        params.get("activation_calibration_observer") or "percentile",
        params.get("activation_calibration_qkwargs") or {},
        params.get("activation_qat_observer"),
        params.get("activation_qat_qkwargs") or {},
        params.get("weight_qat_observer") or "min_max",
    )


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError("not a mapping of names to values", where=where, seen=repr(value), allowed="dict(name=value)")
    return dict(value)


def range_follower(settings: QuantSettings, context: Any = None) -> RangeFollower | None:
    """What moves the scales in QAT; None where they stay or are learned.

    ``moving_average`` follows the greatest magnitudes; any other observer says what it would choose for the samples of
    one look. ``averaging_constant`` among the arguments is the share of the way that a scale moves at each look.

    Raises
    ------
    ConfigError
        An unknown observer, or an argument that it does not have.
    """
    name, kwargs = settings.qat_observer, dict(settings.qat_kwargs)
    if name == LEARNED and kwargs:
        raise ConfigError(
            "learned scales take no arguments",
            where="model_convert_pipeline.qconfig_params.activation_qat_qkwargs",
            seen=", ".join(kwargs),
        )
    if name in (None, LEARNED, "fixed_scale"):
        return None
    constant = kwargs.pop("averaging_constant", 0.1)
    _require_fits("averaging_constant", constant, float)
    catalog = None if context is None else context.catalog
    make = observer_factory("min_max" if name == "moving_average" else str(name), kwargs, catalog)
    return RangeFollower(make, constant)


def observer_factory(name: str, kwargs: Mapping[str, Any], catalog: Any = None) -> Callable[[], Observer]:
    """A function that makes observers of a name: core's, or a plugin's component of kind ``observer``.

    Raises
    ------
    ConfigError
        An unknown name, something else than an observer, or an argument that it does not have or of another type.
    """
    kind: Any = OBSERVERS.get(name)
    if kind is None and catalog is not None and name in catalog:
        kind = catalog[name].resolve()
    if kind is None:
        close = difflib.get_close_matches(name, OBSERVERS, n=1)
        raise ConfigError(
            f"unknown observer {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
            where="model_convert_pipeline.qconfig_params",
            allowed=", ".join(OBSERVERS),
        )

    hints = argument_hints(kind)
    for key, value in kwargs.items():
        _require_fits(key, value, hints.get(key, Any), f"{name}: ")
    factory = ObserverFactory(name, kind, dict(kwargs))
    made: Any = factory()  # so that a wrong argument is reported now, not after the first batch
    if not isinstance(made, Observer):
        raise ConfigError(
            f"{name!r} is not an observer",
            where="model_convert_pipeline.qconfig_params",
            seen=type(made).__name__,
            allowed="a subclass of carkp_core.quant.observers.Observer",
        )
    return factory


def _require_fits(key: str, value: Any, hint: Any, whose: str = "") -> None:
    if not fits(hint, value):
        raise ConfigError(
            f"{whose}the argument {key!r} has another type",
            where="model_convert_pipeline.qconfig_params",
            seen=f"{value!r} ({type(value).__name__})",
            allowed=described(hint),
        )


@frozen
class ObserverFactory:
    """Makes one observer after the other."""

    name: str
    kind: Callable[..., Observer]
    kwargs: Mapping[str, Any]

    def __call__(self) -> Observer:
        try:
            return self.kind(**self.kwargs)
        except TypeError as error:
            raise ConfigError(
                f"observer {self.name!r} cannot be made", where="model_convert_pipeline.qconfig_params", seen=str(error)
            ) from error
