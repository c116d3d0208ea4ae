"""AdaRound: learn for each weight whether it rounds up or down.

Rounding each weight to its nearest step is not what keeps a layer's output nearest to the float one: errors of weights
that are read together may cancel or add up. Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training
Quantization" (arXiv:2004.10568), give each weight a variable v that is rounded softly while it is learned::

    h(v)  = clip(1.2 sigmoid(v) - 0.1, 0, 1)                    the rectified sigmoid; 0 is down, 1 is up
    w~    = s_w clip(floor(w / s_w) + h(v), -127, 127)
    least   |act(w x + b) - act(w~ x^ + b)|**2 + lambda sum(1 - |2 h(v) - 1|**beta)

with the layer's fused activation and residual, its float input x and the input x^ that the quantized layers before it
give. beta falls from 20 to 2, so that first the output decides and then every h goes to 0 or 1.

The result are float weights that stand on whole steps, so evaluation, checkpoints and conversion need to know nothing.
The greatest weight of a row stays: it is what the row's steps are made from. A quarter of the samples is not learned
from: a layer keeps its rounding to nearest unless what was learned is better on these.

Legend: ``S`` samples, ``O`` output channels, ``rows`` [O, count].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from carkp_core.errors import ConfigError
from carkp_core.progress import Advance, progress
from carkp_core.quant import exact
from carkp_core.quant.constants import WEIGHT_LIMIT, WeightedConstants
from carkp_core.quant.layer import float_input
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.ops.weighted import Weighted
from carkp_core.quant.repair.ranges import SAMPLES_AT_ONCE
from carkp_core.quant.repair.repair import InputBatch, matching_layers, note, nothing_usable
from carkp_core.quant.repair.side_by_side import (
    Visit,
    decibels,
    first_samples,
    float_reference,
    forget_reference,
    output_sqnr_db,
    visits,
)
from carkp_core.quant.repair.weighted_layers import shared_weights, weighted

#: The rectified sigmoid's stretch.
GAMMA, ZETA = -0.1, 1.1
#: The exponent of the regulariser at the start and at the end.
BETAS = (20.0, 2.0)
#: The share of the iterations that the output alone decides.
WARM_UP = 0.2
#: Products that an iteration may cost, forward: what a mini-batch of samples is cut to.
MACS_PER_ITERATION = 40_000_000
#: Weights beyond this many steps keep their rounding, since the greatest of a row makes its steps.
PINNED = WEIGHT_LIMIT - 0.5
#: The share of the samples that judge what was learned from the others.
JUDGES = 0.25
REPORTED_ITERATIONS = 20


class AdaRound:
    """Learn the rounding of some layers' weights on the held-back batches.

    Parameters
    ----------
    layers:
        Patterns of module paths, such as ``backbone.stages.0.*``.
    worst:
        Without patterns: so many layers, those whose output suffers most from rounding weights (least SQNR).
    samples:
        Images to learn from; their tensors are kept in memory.
    iterations:
        Steps of Adam for each layer.
    learning_rate, regularization:
        Of Adam, and lambda; both are for an error in parts of the nearest rounding's.
    seed:
        Of the choice of mini-batches.

    Raises
    ------
    ConfigError
        Counts below 1; in calibration, a pattern that matches no layer whose rounding can be learned.
    """

    def __init__(
        self,
        layers: Sequence[str] = (),
        worst: int = 8,
        samples: int = 64,
        iterations: int = 400,
        learning_rate: float = 0.02,
        regularization: float = 0.1,
        seed: int = 0,
    ) -> None:
        if min(worst, samples, iterations) < 1:
            raise ConfigError(
                "AdaRound: worst, samples and iterations are 1 or more", seen=f"{worst}, {samples}, {iterations}"
            )
        self.layers = (layers,) if isinstance(layers, str) else tuple(layers)
        self.worst, self.samples, self.iterations = worst, samples, iterations
        self.learning_rate, self.regularization, self.seed = learning_rate, regularization, seed

    def before_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Nothing but a look at the patterns: the scales are not known yet."""
        forget_reference(network)
        self._named(network)

    def after_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Learn, layer by layer in order, and put the weights on the chosen steps."""
        reference = float_reference(network)
        looked_at = [first_samples(batches, self.samples)]
        before = output_sqnr_db(network, looked_at, reference)
        chosen = self._chosen(network, batches)
        learned: dict[str, Any] = {}
        with progress("AdaRound", len(chosen) * self.iterations) as advance:
            for visit in visits(network, batches, self.samples):
                if visit.step.name in chosen:
                    learned[visit.step.name] = self._learn(visit, advance)
        after = output_sqnr_db(network, looked_at, reference)
        report = {"layers": learned, "output_sqnr_db_before": before, "output_sqnr_db_after": after}
        better = sum(entry["changed_weights"] > 0 for entry in learned.values())
        summary = f"{better} of {len(learned)} layers improved; output SQNR {before:.2f} -> {after:.2f} dB"
        note(network, self, summary, report)

    def _chosen(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> set[str]:
        if self.layers:
            return self._named(network)
        noise = rounding_sqnr_db(network, batches, _usable(network))
        return set(sorted(noise, key=lambda name: noise[name])[: self.worst])

    def _named(self, network: QuantizedNetwork) -> set[str]:
        """The layers that the patterns choose; every pattern must choose one."""
        usable, shared = _usable(network), shared_weights(network)
        chosen: set[str] = set()
        for pattern in self.layers:
            matched = matching_layers(network, pattern, "AdaRound")
            found = {name for name in matched if name in usable}
            if not found:
                why = {n: "shares its weights with another layer" if n in shared else "has no weights" for n in matched}
                raise nothing_usable("AdaRound", repr(pattern), why, usable)
            chosen |= found
        return chosen

    def _learn(self, visit: Visit, advance: Advance) -> dict[str, Any]:
        layer: Any = visit.layer
        task = _Reconstruction.of(visit)
        nearest = task.nearest()
        learners = max(1, visit.samples - round(JUDGES * visit.samples))
        judges = range(learners if learners < visit.samples else 0, visit.samples)
        error_nearest = task.error(visit, nearest, judges)
        soft = _Soft(task)
        optimizer = torch.optim.Adam([soft.variable], lr=self.learning_rate)
        generator = torch.Generator().manual_seed(self.seed)
        size = task.batch_size(visit)
        unit = max(error_nearest, 1e-30)
        for iteration in range(self.iterations):
            index = torch.randint(learners, (size,), generator=generator)
            with torch.enable_grad():
                up = soft.up()
                loss = task.loss(visit, index, task.floor + up) / unit
                beta = _beta(iteration / self.iterations)
                if beta is not None:
                    loss = loss + self.regularization * (1.0 - (2.0 * up - 1.0).abs().pow(beta)).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if (iteration + 1) % REPORTED_ITERATIONS == 0:
                advance(REPORTED_ITERATIONS, note=visit.step.name)
        advance(self.iterations % REPORTED_ITERATIONS)
        rounded = (task.floor + soft.up().detach().round()).clamp_(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        wanted = torch.where(task.pinned, nearest, rounded)
        error = task.error(visit, wanted, judges)
        if error < error_nearest:
            kept = put_on_steps(layer, visit, wanted)
            error = task.error(visit, kept, judges)
        else:
            kept, error = nearest, error_nearest
        return {
            "error_nearest": error_nearest,
            "error_learned": error,
            "changed_weights": int((kept != nearest).sum()),
            "weights": nearest.numel(),
        }


@frozen(eq=False)
class _Reconstruction:
    """What a layer's rounding is learned from: its weights in steps, and where they came from."""

    layer: Weighted
    constants: WeightedConstants
    steps: Tensor  # [O, count], not rounded
    floor: Tensor  # [O, count]
    pinned: Tensor  # [O, count], bool

    @staticmethod
    def of(visit: Visit) -> _Reconstruction:
        layer: Any = visit.layer
        constants = layer.constants(*(given.part(0) for given in visit.inputs))
        steps = layer.rows(layer.folded()[0].detach()).double() / constants.scale_w[:, None]
        steps = steps.clamp_(-WEIGHT_LIMIT, WEIGHT_LIMIT).float()
        return _Reconstruction(layer, constants, steps, steps.floor(), steps.abs() > PINNED)

    def nearest(self) -> Tensor:
        """The weights as they are rounded now."""
        return self.constants.weight

    def batch_size(self, visit: Visit) -> int:
        """Samples of an iteration."""
        positions = visit.float_output[0, 0].numel()
        return max(1, min(32, MACS_PER_ITERATION // max(1, positions * self.steps.numel()), visit.samples))

    def loss(self, visit: Visit, index: Tensor, steps: Tensor) -> Tensor:
        """Mean squared error of the outputs of some samples, with weights of so many steps [O, count]."""
        layer, scale_w = self.layer, self.constants.scale_w.float()
        rows = torch.where(self.pinned, self.nearest(), steps.clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)) * scale_w[:, None]
        given = [_dequantized(stored.values[index], stored.scale) for stored in visit.inputs]
        bias = (self.constants.bias * self.constants.scale_acc).float()
        output = layer.convolve(given[0], layer.unrows(rows), bias)
        if len(given) > 1:
            output = output - given[1] if getattr(layer, "residual", "") == "-" else output + given[1]
        return (layer.bounds.apply(output) - visit.float_output[index]).square().mean()

    def error(self, visit: Visit, steps: Tensor, samples: range) -> float:
        """The same over a range of samples."""
        with torch.no_grad():
            parts = [torch.tensor(samples[s : s + SAMPLES_AT_ONCE]) for s in range(0, len(samples), SAMPLES_AT_ONCE)]
            return sum(float(self.loss(visit, part, steps)) * len(part) for part in parts) / len(samples)


class _Soft:
    """The variables of the rectified sigmoid, which start where it gives the weights as they are."""

    def __init__(self, task: _Reconstruction) -> None:
        rest = (task.steps - task.floor).clamp(1e-3, 1.0 - 1e-3)
        inside = (rest - GAMMA) / (ZETA - GAMMA)
        self.variable = torch.log(inside / (1.0 - inside)).requires_grad_()

    def up(self) -> Tensor:
        """h, [O, count]."""
        return (torch.sigmoid(self.variable) * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


def put_on_steps(layer: Weighted, visit: Visit, wanted: Tensor) -> Tensor:
    """Set the float weights to whole steps [O, count]; returns the steps that the layer then has.

    Rows whose integers would come out otherwise keep their weights: with an int16 input, steps depend on the whole row.
    """
    constants = layer.constants(*(given.part(0) for given in visit.inputs))
    original = layer.weight.detach().clone()
    with torch.no_grad():
        _set_folded_rows(layer, wanted * constants.scale_w[:, None].float())
        found = layer.constants(*(given.part(0) for given in visit.inputs)).weight
        other = (found != wanted).any(dim=1)
        if bool(other.any()):
            rows = torch.where(other[:, None], layer.rows(original), layer.rows(layer.weight))
            layer.weight.copy_(layer.unrows(rows))
    return layer.constants(*(given.part(0) for given in visit.inputs)).weight


def rounding_sqnr_db(
    network: QuantizedNetwork, batches: Sequence[InputBatch], names: Sequence[str], samples: int = SAMPLES_AT_ONCE
) -> dict[str, float]:
    """What rounding each layer's weights alone does to its output: signal over noise in decibels, float inputs."""
    found = {}
    wanted = set(names)
    for visit in visits(network, batches, samples):
        if visit.step.name not in wanted:
            continue
        layer: Any = visit.layer
        constants = layer.constants(*(given.part(0) for given in visit.inputs))
        weight, _ = layer.folded()
        error = layer.unrows(constants.weight * constants.scale_w[:, None].float()) - weight
        noise = layer.convolve(visit.float_inputs[0], error, None)
        signal = layer.convolve(visit.float_inputs[0], weight, None)
        # Channel by channel: how a channel is scaled against its neighbours means nothing.
        power = signal.square().mean(dim=(0, 2, 3))
        share = noise.square().mean(dim=(0, 2, 3))[power > 0] / power[power > 0]
        found[visit.step.name] = decibels(1.0, float(share.mean()) if len(share) else 0.0)
    return found


def _usable(network: QuantizedNetwork) -> list[str]:
    """Layers with weights of their own."""
    shared = shared_weights(network)
    return [s.name for s in network.steps if weighted(network, s.name) is not None and s.name not in shared]


def _set_folded_rows(layer: Weighted, rows: Tensor) -> None:
    """Set the weights so that, with batch norm folded in, they are these rows."""
    if layer.bn is None:
        layer.weight.copy_(layer.unrows(rows))
        return
    assert layer.bn.running_var is not None
    factor = layer.bn.weight * (layer.bn.running_var + layer.bn.eps).rsqrt()
    plain = rows / torch.where(factor == 0, torch.ones_like(factor), factor)[:, None]
    layer.weight.copy_(layer.unrows(torch.where(factor[:, None] == 0, layer.rows(layer.weight), plain)))


def _dequantized(values: Tensor, scale: float) -> Tensor:
    return float_input(exact.QTensor(values.float(), scale, ""))


def _beta(progress_share: float) -> float | None:
    """The exponent after a share of the iterations; None while the output alone decides."""
    if progress_share < WARM_UP:
        return None
    start, end = BETAS
    return start + (end - start) * (progress_share - WARM_UP) / (1.0 - WARM_UP)
