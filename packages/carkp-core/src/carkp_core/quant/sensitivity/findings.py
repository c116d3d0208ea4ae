"""Findings: what the sums of all batches say of each layer, in decibels, shares and changes of the metrics.

A signal-to-noise ratio is 10 log10(sum of squares of the float values / sum of squared errors); infinite without an
error. The network's own ratio is the mean over its outputs of noise over signal, as decibels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import attrs
import numpy as np
from attrs import field, frozen

from carkp_core.errors import QuantizationError
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.quant.observers import OBSERVERS, Observer
from carkp_core.quant.sensitivity.advice import HURTS_LOSS, Advice, advise, hurts
from carkp_core.quant.sensitivity.balance import imbalance, output_gain_db, weight_gain_db
from carkp_core.quant.sensitivity.histogram import Histogram
from carkp_core.quant.sensitivity.measurement import SLOTS, Answer, BatchSums, LayerSums, State
from carkp_core.quant.sensitivity.outline import LayerOutline, Offer, Outline

#: Observers whose thresholds are tried on the histograms, of layers that hurt and of this many of the noisiest.
CANDIDATES = ("min_max", "moving_average", "percentile", "mse", "kl")
TRIED_LAYERS = 10
#: From this many batches with a finite metric on, the standard error of a metric's loss is known.
ERROR_BATCHES = 4

Metrics = Mapping[str, float]
#: Makes metric values by name from the metrics' summed states.
Compute = Callable[[Sequence[State]], dict[str, float]]


@frozen
class Candidate:
    """The threshold that an observer would choose, and the error of rounding with it over the present one's, in dB."""

    observer: str
    threshold: float
    gain_db: float


@frozen(eq=False)
class LayerFindings:
    """One layer. ``*_db`` are signal-to-noise ratios; metrics are values by name, empty without metrics."""

    index: int
    name: str
    op: str
    source: str
    module_path: str
    dtype: str
    scale: float
    #: The magnitude at which the integer type ends.
    threshold: float
    observer: str
    offers: tuple[Offer, ...]
    #: The repair passes that it went through.
    repairs: tuple[str, ...]
    elements: int
    low: float
    high: float
    #: Share of elements beyond the integer type.
    clipping: float
    #: Share of the steps between the clamps that occur, and the entropy of the steps in bits.
    utilisation: float
    entropy_bits: float
    #: The layer's own tensor: only weights rounded, only the output rounded, both, and the whole network.
    weights_db: float
    output_db: float
    alone_db: float
    accumulated_db: float
    #: The network's outputs: this layer alone quantized, and all but this one.
    network_alone_db: float
    network_without_db: float
    #: This layer's share of the noise that all layers, each alone, make at the outputs.
    share: float
    metrics_alone: Metrics
    metrics_without: Metrics
    #: What the first metric loses when only this layer is quantized, and gains when only it is left in float; a metric
    #: of which lower is better loses what it rises.
    loss_alone: float
    gain_without: float
    #: Standard error of ``loss_alone`` over the batches with a finite metric; NaN with fewer than ``ERROR_BATCHES``.
    loss_error: float
    #: Greatest channel's magnitude over the median one's.
    channel_imbalance: float
    #: What equalization could gain at most where the output, and where the weights are rounded.
    output_equalized_db: float
    weights_equalized_db: float
    candidates: tuple[Candidate, ...]
    histogram: Histogram = field(repr=False)
    #: A layer that alone costs more than this of the first metric hurts.
    loss_bound: float = HURTS_LOSS
    #: Another layer has the same weights.
    shared: bool = False
    hurts: bool = False
    advice: tuple[Advice, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the histogram; an infinite ratio becomes null when it is written."""
        return attrs.asdict(self, filter=lambda attribute, _: attribute.name != "histogram")


@frozen(eq=False)
class Sensitivity:
    """A whole network, its layers in execution order."""

    samples: int
    network_db: float
    metrics_float: Metrics
    metrics_quantized: Metrics
    layers: tuple[LayerFindings, ...]
    #: Of the first metric.
    lower_is_better: bool = False

    @property
    def metric(self) -> str:
        """The metric that losses and gains are of: the first; empty without metrics."""
        return next(iter(self.metrics_float), "")

    @property
    def loss(self) -> float:
        """What quantization costs in that metric; NaN without one."""
        return _worse(self.metrics_float, self.metrics_quantized, self.metric, self.lower_is_better)

    @property
    def loss_bound(self) -> float:
        """A loss above this is too much."""
        return _loss_bound(self.metrics_float, self.metrics_quantized, self.metric, self.lower_is_better)

    @property
    def in_points(self) -> bool:
        """Whether the metric is a share, of which people say points (hundredths)."""
        return _is_share(self.metrics_float, self.metrics_quantized, self.metric, self.lower_is_better)

    @property
    def spread(self) -> bool:
        """Whether the metric loses too much although no layer hurts by itself."""
        return self.loss > self.loss_bound and not any(layer.hurts for layer in self.layers)

    def ranked(self) -> list[LayerFindings]:
        """Layers, worst first: those that hurt, then by the noise that each alone makes at the outputs."""
        return sorted(self.layers, key=lambda layer: (not layer.hurts, -layer.share, layer.index))

    def to_json(self) -> dict[str, Any]:
        """The fixed machine-readable form."""
        return {
            "samples": self.samples,
            "metric": self.metric,
            "lower_is_better": self.lower_is_better,
            "network_db": self.network_db,
            "metrics_float": dict(self.metrics_float),
            "metrics_quantized": dict(self.metrics_quantized),
            "worst_layers": worst_layers(self),
            "layers": [layer.to_json() for layer in self.layers],
        }


def worst_layers(found: Sensitivity, count: int | None = None) -> list[str]:
    """The layers that hurt, worst first, by module path; at most ``count`` of them."""
    return [layer.name for layer in found.ranked() if layer.hurts][:count]


def findings(
    batches: Sequence[BatchSums],
    outline: Outline,
    compute: Compute = lambda _: {},
    lower_is_better: bool = False,
) -> Sensitivity:
    """Put the batches of one network together.

    Parameters
    ----------
    batches:
        At least one, in their order.
    outline:
        What the layers are.
    compute:
        Metric values from summed states.
    lower_is_better:
        Whether the first metric is a distance or an error.

    Raises
    ------
    QuantizationError
        Without any batch.
    """
    if not batches:
        remedy = "give at least one batch: check that the data set is not empty"
        raise QuantizationError("there is nothing to measure the layers on", seen="no batches", remedy=remedy)
    total = reduce(lambda a, b: a + b, batches)
    metrics_float, metrics_quantized = compute(total.in_float.states), compute(total.in_integers.states)
    metric = next(iter(metrics_float), "")
    bound = _loss_bound(metrics_float, metrics_quantized, metric, lower_is_better)
    noises = {name: _network_noise(total, sums.only) for name, sums in total.layers.items()}
    everything = sum(noises.values())
    layers = []
    for index, (name, sums) in enumerate(total.layers.items()):
        alone, without = compute(sums.only.states), compute(sums.without.states)
        layers.append(
            attrs.evolve(
                _layer(outline.layers[name], sums, total.layers.get(outline.layers[name].reads)),
                index=index,
                network_alone_db=_decibels(1.0, noises[name]),
                network_without_db=_decibels(1.0, _network_noise(total, sums.without)),
                share=noises[name] / everything if everything else 0.0,
                metrics_alone=alone,
                metrics_without=without,
                loss_alone=_worse(metrics_float, alone, metric, lower_is_better),
                gain_without=_worse(without, metrics_quantized, metric, lower_is_better),
                loss_error=_loss_error(batches, name, metric, compute),
                loss_bound=bound,
            )
        )
    noisy = sorted(layers, key=lambda layer: -layer.share)[:TRIED_LAYERS]
    judged = []
    for layer in layers:
        if layer in noisy or hurts(layer):
            parts = [batch.layers[layer.name] for batch in batches]
            layer = attrs.evolve(layer, candidates=_candidates(outline.layers[layer.name], layer.histogram, parts))
        verdict = advise(layer)
        judged.append(attrs.evolve(layer, hurts=verdict.hurts, advice=verdict.advice))
    network_db = _decibels(1.0, _network_noise(total, total.in_integers))
    return Sensitivity(total.samples, network_db, metrics_float, metrics_quantized, tuple(judged), lower_is_better)


def _worse(before: Metrics, after: Metrics, metric: str, lower_is_better: bool) -> float:
    """By how much a metric is worse afterwards; NaN without one."""
    if not metric:
        return math.nan
    return after[metric] - before[metric] if lower_is_better else before[metric] - after[metric]


def _is_share(before: Metrics, after: Metrics, metric: str, lower_is_better: bool) -> bool:
    """Within 0..1, and no distance that happens to be small."""
    return bool(metric) and not lower_is_better and all(0.0 <= values[metric] <= 1.0 for values in (before, after))


def _loss_bound(before: Metrics, after: Metrics, metric: str, lower_is_better: bool) -> float:
    """The loss that is too much: of a share in its own unit, of anything else relative to the float network's value."""
    if not metric or _is_share(before, after, metric, lower_is_better):
        return HURTS_LOSS
    return HURTS_LOSS * abs(before[metric])


def _loss_error(batches: Sequence[BatchSums], name: str, metric: str, compute: Compute) -> float:
    """Standard error of what a layer alone costs, from the differences of the batches that have the metric."""
    if not metric or len(batches) < ERROR_BATCHES:
        return math.nan
    losses = [
        compute(batch.in_float.states)[metric] - compute(batch.layers[name].only.states)[metric] for batch in batches
    ]
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < ERROR_BATCHES:
        return math.nan
    return float(np.std(finite, ddof=1)) / math.sqrt(len(finite))


def _layer(outline: LayerOutline, sums: LayerSums, read: LayerSums | None) -> LayerFindings:
    """What its own tensor and the one that it reads say; the network's answers are filled in by the caller."""
    lowest, highest = INT_RANGE[outline.dtype]
    lo, hi = outline.bounds.limits(outline.scale, outline.dtype)
    part = (highest - lowest + 1) // SLOTS
    slots = sums.slots
    possible = (hi - lowest) // part - (lo - lowest) // part + 1
    return LayerFindings(
        index=0,
        name=outline.name,
        op=outline.op,
        source=outline.source,
        module_path=outline.module_path,
        dtype=outline.dtype,
        scale=outline.scale,
        threshold=outline.scale * highest,
        observer=outline.observer,
        offers=outline.offers,
        repairs=outline.repairs,
        elements=sums.elements,
        low=sums.low,
        high=sums.high,
        clipping=sums.clipped / sums.elements,
        utilisation=int((slots > 0).sum()) / possible,
        entropy_bits=_entropy(slots / slots.sum()),
        weights_db=_decibels(sums.signal, sums.from_weights),
        output_db=_decibels(sums.signal, sums.from_output),
        alone_db=_decibels(sums.signal, sums.alone),
        accumulated_db=_decibels(sums.signal, sums.accumulated),
        network_alone_db=math.inf,
        network_without_db=math.inf,
        share=0.0,
        metrics_alone={},
        metrics_without={},
        loss_alone=math.nan,
        gain_without=math.nan,
        loss_error=math.nan,
        channel_imbalance=imbalance(sums.channel_absmax),
        output_equalized_db=output_gain_db(
            sums.channel_absmax, outline.scale * highest, outline.importance, outline.variables
        ),
        weights_equalized_db=0.0 if read is None else weight_gain_db(read.channel_absmax, outline.reach),
        candidates=(),
        histogram=sums.histogram,
        shared=outline.shared,
    )


def _candidates(outline: LayerOutline, whole: Histogram, parts: Sequence[LayerSums]) -> tuple[Candidate, ...]:
    """What other observers would choose, having seen the batches in order; none where one chose by output error."""
    if outline.fixed or outline.offers:
        return ()
    highest = INT_RANGE[outline.dtype][1]
    present = _noise(whole, outline, outline.scale)
    found = []
    for name in CANDIDATES:
        observer: Observer = OBSERVERS[name]()
        for part in parts:
            observer.update(part.histogram.sample(part.low, part.high))
        threshold = float(observer.threshold(highest))
        if threshold > 0.0:
            gain = _decibels(present, _noise(whole, outline, threshold / highest))
            found.append(Candidate(name, threshold, gain))
    return tuple(found)


def _noise(histogram: Histogram, outline: LayerOutline, scale: float) -> float:
    return histogram.rounding_noise(scale, *outline.bounds.limits(scale, outline.dtype))


def _network_noise(total: BatchSums, answer: Answer) -> float:
    """Noise over signal, the mean over the outputs; an output of zeros counts as 1 where there is noise."""
    ratios = [
        noise / signal if signal > 0.0 else float(noise > 0.0)
        for noise, signal in zip(answer.noise, total.signal, strict=True)
    ]
    return sum(ratios) / len(ratios)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def _entropy(shares: Any) -> float:
    used = shares[shares > 0.0]
    return max(0.0, float(-(used * np.log2(used)).sum()))
