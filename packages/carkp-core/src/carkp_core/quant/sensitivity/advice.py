"""What to do about a layer that hurts: one function for each rule, its docstring the rule.

A layer hurts when, quantized alone, it leaves the network's outputs a signal-to-noise ratio under ``HURTS_DB``, or
costs more than ``HURTS_LOSS`` of the first metric, and surely so. Only such a layer gets advice. The rules are asked in
their order; the first that applies is what to do, and int16 stands behind it where the layer would still hurt
afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from attrs import frozen

if TYPE_CHECKING:
    from carkp_core.quant.sensitivity.findings import LayerFindings

#: A layer hurts whose rounding alone moves the outputs by more than 3.2 % of their RMS.
HURTS_DB = 30.0
#: A layer hurts that alone costs more than this of the first metric, and this many of its standard errors: 0.2 points
#: of a share, 0.2 % of the float network's value of anything else.
HURTS_LOSS, SURE = 0.002, 3.0
#: Equalizing is worth it from this on: the median channel has lost about a bit.
EQUALIZE_GAIN_DB = 6.0
#: Another observer is worth it from this on: the error's energy falls by 30 %.
OBSERVER_GAIN_DB = 1.5

Action = Literal["equalize", "observer", "adaround", "int16"]


@frozen
class Advice:
    """What to do, why, and what it would gain at this layer at most (NaN where that is not known).

    ``config`` is what the calibration trainer's config would say: an entry of ``repairs``, or of ``qconfig_params``;
    empty where the march refuses it.
    """

    action: Action
    text: str
    config: str
    gain_db: float = math.nan
    #: What int16 adds to a frame, where a backend could estimate it.
    latency_ms: float | None = None
    #: The march's rules that int16 would break here; empty where it may be done, or no backend could say.
    refused_by: str = ""


@frozen
class Verdict:
    """Whether a layer hurts, and what to do about it."""

    hurts: bool
    advice: tuple[Advice, ...] = ()


Rule = Callable[["LayerFindings"], Advice | None]


def advise(layer: LayerFindings) -> Verdict:
    """Judge a layer."""
    if not hurts(layer):
        return Verdict(False)
    fine = next((made for rule in FINE_RULES if (made := rule(layer)) is not None), None)
    wide = int16(layer)
    if fine is None:
        return Verdict(True, () if wide is None else (wide,))
    known = not math.isnan(fine.gain_db)
    cured = layer.network_alone_db + (fine.gain_db if known else 0.0) >= HURTS_DB
    return Verdict(True, (fine,) if cured or wide is None else (fine, wide))


def hurts(layer: LayerFindings) -> bool:
    """Whether the layer, quantized alone, does visible harm."""
    certain = layer.loss_alone > SURE * layer.loss_error  # False where the error is not known
    return layer.network_alone_db < HURTS_DB or (layer.loss_alone > layer.loss_bound and certain)


def equalize(layer: LayerFindings) -> Advice | None:
    """Channels of very different range share one step, and equalizing them could gain 6 dB where the error comes from.

    That is the rounded output or, where weights do more harm, the rows of weights that read very different channels.
    Not where it was done already.
    """
    if "CrossLayerEqualization" in layer.repairs:
        return None
    output = _from_output(layer)
    gain = layer.output_equalized_db if output else layer.weights_equalized_db
    if gain < EQUALIZE_GAIN_DB:
        return None
    if output:
        ratio = layer.channel_imbalance
        what = f"its channels share one step, the loudest reaches {ratio:.3g} times the median one"
        neighbours = "that read it"
    else:
        what, neighbours = "its weights share one step in each row for very different input channels", "before it"
    text = f"{what}: equalize it with the layers {neighbours}, {gain:.0f} dB are to be had at most"
    return Advice("equalize", text, 'dict(type="CrossLayerEqualization")', gain)


def observer(layer: LayerFindings) -> Advice | None:
    """The error comes from the output, and another observer's threshold would round it with 1.5 dB less: take it.

    ``mix`` lets each tensor have its own; not where it was at work already and chose otherwise.
    """
    best = max(layer.candidates, key=lambda candidate: candidate.gain_db, default=None)
    if best is None or not _from_output(layer) or best.gain_db < OBSERVER_GAIN_DB:
        return None
    share = 100 * layer.clipping
    what = f"clips {share:.3g} %" if best.threshold > layer.threshold else "spends steps on rare values"
    text = f"its threshold {layer.threshold:.4g} {what}: the observer {best.observer} would take {best.threshold:.4g}"
    return Advice("observer", text, 'activation_calibration_observer="mix"', best.gain_db)


def adaround(layer: LayerFindings) -> Advice | None:
    """The error comes from the weights: learn which way each of them is rounded, unless that was done.

    Not where another layer has the same weights: AdaRound leaves them alone.
    """
    if _from_output(layer) or layer.shared or "AdaRound" in layer.repairs:
        return None
    text = f"rounded weights alone leave {_db(layer.weights_db)}, the rounded output alone {_db(layer.output_db)}"
    config = f'dict(type="AdaRound", layers=["{layer.name}"])'
    return Advice("adaround", f"{text}: learn which way each weight is rounded", config)


def int16(layer: LayerFindings) -> Advice | None:
    """Nothing finer applies, or not enough, and the error comes from an int8 output: make it int16."""
    if layer.op == "input" or layer.dtype != "int8" or not _from_output(layer):
        return None
    gain = layer.weights_db - layer.alone_db
    config = f'dict(type="Int16", tensors=["{layer.name}"])'
    return Advice("int16", "eight bits are too few for this tensor: make it int16", config, gain)


#: The rules that keep int8, in the order in which they are asked.
FINE_RULES: tuple[Rule, ...] = (equalize, observer, adaround)


def _from_output(layer: LayerFindings) -> bool:
    """Whether rounding the output does more harm than rounding the weights."""
    return layer.output_db <= layer.weights_db


def _db(value: float) -> str:
    return "no error" if value == math.inf else f"{value:.1f} dB"
