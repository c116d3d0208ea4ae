"""From observers to scales: what was seen is checked, a threshold is chosen, and a record of it is kept.

A record, one for each observed tensor, holds plain values:

=============================  ====================================================================================
``observer``, ``choice``       the observer's name and the candidate that won; equal unless the observer chooses
``threshold``, ``scale``       the magnitude that was asked for, and the step that came of it
``low``, ``high``, ``batches`` the exact extremes, over so many batches
``thresholds``, ``errors``     where there was a choice: each candidate's threshold, and its error (``output_error``)
=============================  ====================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from carkp_core.errors import QuantizationError
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.quant.constants import safe_scale
from carkp_core.quant.layer import Layer
from carkp_core.quant.observers import Observer
from carkp_core.quant.output_error import output_errors

if TYPE_CHECKING:
    from carkp_core.quant.network import QuantizedNetwork

Record = dict[str, Any]

#: How much further than seen an int16 tensor reaches, where something widens or moves its scale.
HEADROOM = 1.25


def fix_scales(
    network: QuantizedNetwork,
    observers: Mapping[str, Observer],
    strict: bool = True,
    batches: Iterable[Sequence[Tensor]] = (),
) -> dict[str, Record]:
    """Turn what observers saw into scales, and return a record for each tensor.

    Parameters
    ----------
    observers:
        By tensor name.
    strict:
        Refuse what has no meaning; otherwise such a tensor gets some scale.
    batches:
        Held-back inputs: where an observer chooses, the candidate with the least output error on them wins. Without
        any, the observer's own ``threshold`` does.

    Raises
    ------
    QuantizationError
        With ``strict``: no data, NaN or infinite values, in the calibration batches or in the held-back ones.
    """
    if strict:
        for name, observer in observers.items():
            require_usable(name, network.layer(name), observer)
    offers = {name: o.candidates(_levels(network.layer(name))) for name, o in observers.items()}
    errors = _errors(network, observers, offers, batches)
    records = {}
    for name, observer in observers.items():
        layer = network.layer(name)
        if strict and not all(map(math.isfinite, errors.get(name, {}).values())):
            raise QuantizationError(
                "the observer's candidates cannot be compared",
                where=str(layer.source) or name,
                seen="NaN or infinite outputs on the held-back batches",
                remedy=_REMEDY_DEFECT,
            )
        records[name] = _record(layer, observer, offers[name], errors.get(name, {}))
        layer.set_scale(records[name]["scale"])
    return records


def require_usable(name: str, layer: Layer, observer: Observer, where: str = "") -> None:
    """Raise QuantizationError if an observer saw nothing, NaN or infinite values; ``where`` says in which batch."""
    if observer.batches and not observer.defect:
        return
    seen, remedy = "no data", "calibrate with at least one batch: check the calibration data loader and num_steps"
    if observer.defect:
        seen, remedy = f"{observer.defect} in its output", _REMEDY_DEFECT
        if layer.kind == "input":
            seen, remedy = f"{observer.defect} in the network input", _REMEDY_INPUT
        elif not all(bool(torch.isfinite(parameter).all()) for parameter in layer.parameters()):
            seen, remedy = f"{seen}, and weights that are not finite", _REMEDY_WEIGHTS
        seen += f", {where}" if where else ""
    raise QuantizationError(
        "the layer's scale cannot be calibrated", where=str(layer.source) or name, seen=seen, remedy=remedy
    )


def silent_tensors(records: Mapping[str, Record]) -> list[str]:
    """The tensors that were 0 throughout."""
    return [name for name, record in records.items() if record["low"] == record["high"] == 0.0]


def _levels(layer: Layer) -> int:
    return INT_RANGE[layer.dtype][1]


def _errors(
    network: QuantizedNetwork,
    observers: Mapping[str, Observer],
    offers: Mapping[str, Mapping[str, float]],
    batches: Iterable[Sequence[Tensor]],
) -> dict[str, dict[str, float]]:
    """Each candidate's output error, for the tensors whose candidates differ; empty without batches."""
    scales: dict[str, dict[str, float]] = {}
    for name, offer in offers.items():
        dtype = network.layer(name).dtype
        steps = {candidate: safe_scale(threshold, dtype) for candidate, threshold in offer.items()}
        if observers[name].chooses and len(set(steps.values())) > 1:
            scales[name] = steps
    if not scales:
        return {}
    tried = {name: sorted(set(steps.values())) for name, steps in scales.items()}
    found = output_errors(network, tried, batches)
    return {name: {c: found[name][step] for c, step in scales[name].items()} for name in found}


def _record(layer: Layer, observer: Observer, offer: Mapping[str, float], errors: Mapping[str, float]) -> Record:
    if errors:
        choice = min(errors, key=lambda candidate: errors[candidate])
        threshold = offer[choice]
    else:
        threshold = observer.threshold(_levels(layer))
        choice = next((name for name, offered in offer.items() if offered == threshold), observer.name)
    record: Record = {
        "observer": observer.name or type(observer).__name__,
        "choice": choice,
        "threshold": threshold,
        "scale": safe_scale(threshold, layer.dtype),
        "low": observer.low,
        "high": observer.high,
        "batches": observer.batches,
    }
    if len(offer) > 1:
        record |= {"thresholds": dict(offer), "errors": dict(errors)}
    return record


_REMEDY_DEFECT = "look at the float network: predict --stage float must give finite outputs on these images"
_REMEDY_INPUT = "look at the calibration data and its transforms: divisions by 0, missing values, wrong types"
_REMEDY_WEIGHTS = "load another checkpoint: the training that made this one has diverged"
