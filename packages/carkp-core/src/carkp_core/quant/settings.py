"""What a config may choose: ``qat_mode`` and ``qconfig_params`` of a ``ModelConvertPipeline``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

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
        An unknown mode or key, or an observer that weights cannot have; names what is allowed.
    """
    mode = "fuse_bn" if qat_mode is None else qat_mode
    if mode not in QAT_MODES:
        where = "model_convert_pipeline.qat_mode"
        raise ConfigError(f"unknown qat_mode {mode!r}", where=where, allowed=", ".join(QAT_MODES))
    params = dict(qconfig_params or {})
    for key in params:
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, n=1)
            raise ConfigError(
                f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
                where="model_convert_pipeline.qconfig_params",
                allowed=", ".join(_KEYS),
            )
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
    catalog = None if context is None else context.catalog
    make = observer_factory("min_max" if name == "moving_average" else str(name), kwargs, catalog)
    return RangeFollower(make, constant)


def observer_factory(name: str, kwargs: Mapping[str, Any], catalog: Any = None) -> Callable[[], Observer]:
    """A function that makes observers of a name: core's, or a plugin's component of kind ``observer``.

    Raises
    ------
    ConfigError
        An unknown name, something else than an observer, or an argument that it does not have.
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
