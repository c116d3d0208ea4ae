"""Int16 where it gains most for the time it takes: chosen by measured error and the backend's performance model.

Greedy. Every tensor is tried alone: how much of the outputs' error goes when it is int16 (weight bits that its
readers lose included, since the integers themselves are run). The best few are put in order of error gained for each
millisecond added, and taken one after the other as long as the estimate of the whole program stays inside the budget,
the march's checker accepts it, and the error really falls.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from carkp_core.backend import CompileOptions, NpuBackend
from carkp_core.context import Context
from carkp_core.errors import ConfigError, QuantizationError
from carkp_core.progress import track
from carkp_core.quant.convert import convert
from carkp_core.quant.layer import float_input
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.int16 import greatest_values, weight_bits_lost, widen
from carkp_core.quant.repair.repair import InputBatch, note
from carkp_core.quant.repair.side_by_side import decibels, first_samples, mean_noise, squares
from carkp_core.quant.types import deciding, set_types

#: A tensor must take this share of the present error away, else it stays int8.
LEAST_GAIN = 0.02
#: Added milliseconds below this share of the program count as this share, so that free ones are ordered by their gain.
LEAST_ADDED = 1e-3


class AutoInt16:
    """Choose int16 tensors under a latency budget.

    Put it before passes that round weights or shift biases, since the choice changes what they see.

    Parameters
    ----------
    latency_budget:
        The int16 program's latency may be this many times the int8 program's.
    candidates:
        So many tensors, those that gain most alone, are looked at with the performance model.
    most:
        At most so many are chosen; None for no limit.
    samples:
        Images on which errors are measured.

    Raises
    ------
    ConfigError
        A budget below 1; in calibration, no backend to ask.
    """

    def __init__(
        self,
        latency_budget: float = 1.10,
        candidates: int = 12,
        most: int | None = None,
        samples: int = 16,
        *,
        context: Context,
    ) -> None:
        if not latency_budget >= 1.0:
            raise ConfigError(
                "AutoInt16: latency_budget is a factor of the int8 latency", seen=str(latency_budget), allowed=">= 1"
            )
        if min(candidates, samples) < 1:
            raise ConfigError("AutoInt16: candidates and samples are 1 or more", seen=f"{candidates}, {samples}")
        self.latency_budget, self.candidates, self.most, self.samples = latency_budget, candidates, most, samples
        self.context = context

    def before_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Nothing: the errors are not known yet."""

    def after_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Try, choose, set types and scales."""
        trial = _Trial(network, batches, self.samples)
        machine = _Machine(self.context)
        noise = before = trial.noise(())
        latency = base = machine.latency_ms(network)
        gains, refused = self._alone(trial, machine, before)
        taken: list[dict[str, Any]] = []
        for name in self._ordered(trial, machine, gains, base):
            if self.most is not None and len(taken) >= self.most:
                break
            names = [*(entry["tensor"] for entry in taken), name]
            found = trial.noise(names)
            if found >= noise * (1.0 - LEAST_GAIN):
                refused[name] = "gains nothing beside those taken before"
                continue
            with trial.with_int16(names) as changed:
                said = machine.findings(changed)
                now = machine.latency_ms(changed) if not said else 0.0
            if said or now > base * self.latency_budget:
                refused[name] = said or f"{now:.4g} ms is beyond the budget of {base * self.latency_budget:.4g} ms"
                continue
            taken.append({"tensor": name, "error_taken_away": 1.0 - found / noise, "added_ms": now - latency})
            noise, latency = found, now
        trial.keep([entry["tensor"] for entry in taken])
        report = {
            "tensors": taken,
            "refused": refused,
            "latency_ms_before": base,
            "latency_ms_after": latency,
            "latency_budget": self.latency_budget,
            "output_sqnr_db_before": decibels(1.0, before),
            "output_sqnr_db_after": decibels(1.0, noise),
            "weight_bits_lost": weight_bits_lost(network, batches[0]),
        }
        note(network, self, _summary(report), report)

    def _alone(self, trial: _Trial, machine: _Machine, before: float) -> tuple[dict[str, float], dict[str, str]]:
        """How much of the error each tensor takes away alone, the best few; why others cannot be int16."""
        gains: dict[str, float] = {}
        refused: dict[str, str] = {}
        for name in track(trial.names, "int16: each tensor alone"):
            found = trial.noise_or_why_not(name)
            if isinstance(found, str):
                refused[name] = found
            else:
                gains[name] = before - found
        best: dict[str, float] = {}
        for name in sorted(gains, key=lambda name: -gains[name]):
            if gains[name] < LEAST_GAIN * before or len(best) == self.candidates:
                break
            with trial.with_int16([name]) as changed:
                said = machine.findings(changed)
            if said:
                refused[name] = said
            else:
                best[name] = gains[name]
        return best, refused

    def _ordered(self, trial: _Trial, machine: _Machine, gains: Mapping[str, float], base: float) -> list[str]:
        """Most gained for each added millisecond first, estimated by a plan that is quick to make."""
        quick = machine.quick_latency_ms(trial.network)
        worth = {}
        for name in track(list(gains), "int16: time that each adds"):
            with trial.with_int16([name]) as changed:
                added = (machine.quick_latency_ms(changed) - quick) / quick
            worth[name] = gains[name] / max(added, LEAST_ADDED)
        return sorted(worth, key=lambda name: -worth[name])


def _summary(report: Mapping[str, Any]) -> str:
    names = ", ".join(entry["tensor"] for entry in report["tensors"]) or "no tensor"
    return (
        f"{names}; latency {report['latency_ms_before']:.4g} -> {report['latency_ms_after']:.4g} ms, "
        f"output SQNR {report['output_sqnr_db_before']:.2f} -> {report['output_sqnr_db_after']:.2f} dB"
    )


class _Machine:
    """The backend's answers on networks."""

    def __init__(self, context: Context) -> None:
        backend = context.backend_or_none()
        if backend is None or context.compile_options is None:
            raise ConfigError(
                "AutoInt16 asks a backend for latencies, and none is installed",
                allowed="Int16(tensors=[...]) chooses without one",
                remedy="pip install carkp-bpu",
            )
        self._backend: NpuBackend = backend
        self._options: CompileOptions = context.compile_options()

    def latency_ms(self, network: QuantizedNetwork) -> float:
        return self._backend.estimate(convert(network, "trial"), self._options).latency_ms

    def quick_latency_ms(self, network: QuantizedNetwork) -> float:
        return self._backend.estimate(convert(network, "trial"), attrs.evolve(self._options, opt="O1")).latency_ms

    def findings(self, network: QuantizedNetwork) -> str:
        """What the checker has against it; empty when nothing."""
        report = self._backend.check(convert(network, "trial"), self._options.march)
        if report.ok:
            return ""
        return "; ".join(dict.fromkeys(f"{v.node}: {v.rule}" for v in report.violations)) or "not on the NPU"


class _Trial:
    """The network with some tensors int16, for a moment or for good."""

    def __init__(self, network: QuantizedNetwork, batches: Sequence[InputBatch], samples: int) -> None:
        self.network = network
        deciders = dict.fromkeys(deciding(network, step.name) for step in network.steps)
        self.names = [n for n in deciders if n not in network.inputs and network.layer(n).dtype == "int8"]
        self._greatest = greatest_values(network, batches, self.names)
        self._images = first_samples(batches, samples)
        with torch.no_grad():
            self._wanted = network.float_values(self._images)
        self._signal = {name: squares(value) for name, value in self._wanted.items()}

    def noise(self, names: Sequence[str]) -> float:
        """Noise over signal, the mean over the outputs."""
        with self.with_int16(names) as network, torch.no_grad():
            got = network.integer_values(self._images)
        noise = {name: squares(float_input(got[name]) - wanted) for name, wanted in self._wanted.items()}
        return mean_noise(self._signal, noise)

    def noise_or_why_not(self, name: str) -> float | str:
        """The noise with one tensor int16, or why it cannot be."""
        try:
            return self.noise([name])
        except QuantizationError as error:
            return error.message

    def with_int16(self, names: Sequence[str]) -> _Changed:
        """A context in which these are int16."""
        return _Changed(self, names)

    def keep(self, names: Sequence[str]) -> None:
        """Make these int16 for good."""
        before = {name: self.network.layer(name).wanted_scale() for name in names}
        set_types(self.network, dict.fromkeys(names, "int16"))
        for name, scale in before.items():
            self.network.layer(name).scale.fill_(scale * 127.0 / 32767.0)
        widen(self.network, names, self._greatest)


class _Changed:
    """Makes tensors int16 on entering and puts types and scales back on leaving."""

    def __init__(self, trial: _Trial, names: Sequence[str]) -> None:
        self._trial, self._names = trial, names

    def __enter__(self) -> QuantizedNetwork:
        network = self._trial.network
        self._scales = {name: copy.deepcopy(network.layer(name).scale) for name in self._names}
        self._trial.keep(self._names)
        return network

    def __exit__(self, *_: object) -> None:
        network = self._trial.network
        set_types(network, dict.fromkeys(self._names, "int8"))
        for name, scale in self._scales.items():
            network.layer(name).scale.copy_(scale)
