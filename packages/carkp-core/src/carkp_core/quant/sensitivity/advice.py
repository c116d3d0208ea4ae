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
#: A layer hurts that alone costs more than this of the first metric, 0.2 points, and this many of its standard errors.
HURTS_LOSS, SURE = 0.002, 3.0
#: Channels are out of balance when the greatest is this many times the median one: three of eight bits are lost.
IMBALANCE = 8.0
#: Another observer is worth it from this on: the error's energy falls by 30 %.
OBSERVER_GAIN_DB = 1.5

Action = Literal["equalize", "observer", "adaround", "int16"]


@frozen
class Advice:
    """What to do, why, and what it would gain at this layer at most (NaN where that is not known)."""

    action: Action
    text: str
    gain_db: float = math.nan
    #: What int16 adds to a frame, where a backend could estimate it.
    latency_ms: float | None = None


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
    cured = layer.network_alone_db + (0.0 if math.isnan(fine.gain_db) else fine.gain_db) >= HURTS_DB
    return Verdict(True, (fine,) if cured or wide is None else (fine, wide))


def hurts(layer: LayerFindings) -> bool:
    """Whether the layer, quantized alone, does visible harm."""
    certain = layer.loss_alone > SURE * layer.loss_error  # False where the error is not known
    return layer.network_alone_db < HURTS_DB or (layer.loss_alone > HURTS_LOSS and certain)


def equalize(layer: LayerFindings) -> Advice | None:
    """Channels out of balance by a factor of 8, in the output or among the weights' input channels: equalize.

    It applies where the error comes from there (output rounding, or weights), and where scales may be moved between
    the layer and its neighbours.
    """
    if layer.output_db <= layer.weights_db:
        if layer.channel_imbalance >= IMBALANCE and layer.scalable:
            return Advice(
                "equalize",
                f"its loudest channel reaches {layer.channel_imbalance:.3g} times the median one, which is left with "
                f"{_levels(layer.channel_imbalance)}: equalize with the layers that read it",
                20.0 * math.log10(layer.channel_imbalance),
            )
    elif layer.weight_imbalance >= IMBALANCE and layer.input_scalable:
        return Advice(
            "equalize",
            f"the weights of one input channel are {layer.weight_imbalance:.3g} times the median one's, which are left "
            f"with {_levels(layer.weight_imbalance)}: equalize with the layer that makes the input",
            20.0 * math.log10(layer.weight_imbalance),
        )
    return None


def observer(layer: LayerFindings) -> Advice | None:
    """The error comes from the output, and another observer's threshold would round it with 1.5 dB less: take it."""
    best = max(layer.candidates, key=lambda candidate: candidate.gain_db, default=None)
    if best is None or layer.output_db > layer.weights_db or best.gain_db < OBSERVER_GAIN_DB:
        return None
    what = f"clips {100 * layer.clipping:.3g} %" if best.threshold > layer.threshold else "wastes steps on rare values"
    return Advice(
        "observer",
        f"its threshold {layer.threshold:.4g} {what}: the observer {best.observer} would take {best.threshold:.4g}",
        best.gain_db,
    )


def adaround(layer: LayerFindings) -> Advice | None:
    """The error comes from the weights: learn which way each of them is rounded."""
    if layer.weights_db >= layer.output_db:
        return None
    return Advice(
        "adaround",
        f"rounded weights alone leave {_db(layer.weights_db)}, the rounded output alone {_db(layer.output_db)}: "
        "choose each weight's rounding by AdaRound",
    )


def int16(layer: LayerFindings) -> Advice | None:
    """Nothing finer applies, or not enough, and the error comes from an int8 output: make it int16."""
    if layer.dtype != "int8" or layer.output_db > layer.weights_db:
        return None
    gain = layer.weights_db - layer.alone_db
    return Advice("int16", "eight bits are too few for this tensor: make it int16", gain)


#: The rules that keep int8, in the order in which they are asked.
FINE_RULES: tuple[Rule, ...] = (equalize, observer, adaround)


def _levels(imbalance: float) -> str:
    return f"{max(1, round(127 / imbalance))} of 127 steps"


def _db(value: float) -> str:
    return "no error" if value == math.inf else f"{value:.1f} dB"
