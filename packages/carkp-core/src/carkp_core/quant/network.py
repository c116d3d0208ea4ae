"""The quantized network: layers run one after the other, in float to observe, in integers to evaluate and to train.

In evaluation the outputs are those of the integer model, bit for bit, times their scales. In training the forward
values are the same and gradients pass straight through the roundings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, fx, nn

from carkp_core.errors import QuantizationError
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.ir.graph import Source
from carkp_core.quant import exact
from carkp_core.quant.constants import safe_scale
from carkp_core.quant.exact import QTensor
from carkp_core.quant.graph import LayerGraph
from carkp_core.quant.layer import Layer, float_input
from carkp_core.quant.observers import MinMax, Observer
from carkp_core.quant.types import chosen_forms, take_forms

#: In QAT with an observer: every how many steps, and on how many samples, the ranges are looked at again.
QAT_OBSERVE_STEPS, QAT_OBSERVE_SAMPLES = 16, 8


@frozen
class Step:
    """One layer's turn: the tensor it makes and the tensors it reads."""

    name: str
    key: str
    inputs: tuple[str, ...]


class Input(Layer):
    """Where floats become integers. A fixed scale (1/128 for pixels minus 128) is never observed."""

    kind = "input"

    def __init__(self, fixed_scale: float | None) -> None:
        super().__init__()
        self.fixed = fixed_scale is not None
        if fixed_scale is not None:
            self.scale.fill_(fixed_scale)

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def quantize(self, values: Tensor) -> QTensor:
        """The integer input."""
        scale = self.wanted_scale()
        return QTensor(exact.quantize(values.float(), scale, *INT_RANGE[self.dtype]), scale, self.dtype)


class QuantizedNetwork(nn.Module):
    """A network of quantized layers.

    Its ``state_dict`` holds the float weights and the scales, which is all that its integers are made from, and how
    they came about.
    """

    def __init__(
        self,
        layers: LayerGraph,
        input_scales: Mapping[str, float] | None = None,
        qat_observer: Callable[[], Observer] | None = None,
    ) -> None:
        super().__init__()
        scales = input_scales or {}
        self.inputs = nn.ModuleDict()
        for node in layers.inputs:
            layer = Input(scales.get(node.meta["label"]))
            layer.label, layer.source = node.meta["label"], Source(node.meta["label"])
            self.inputs[node.meta["label"]] = layer
        self.layers = layers.modules()
        self.steps = tuple(Step(n.meta["label"], n.name, _labels(layers.sources(n))) for n in layers)
        output = next(node for node in layers.graph.nodes if node.op == "output")
        #: The outputs' names, nested as the float network nests its outputs.
        self.structure: Any = fx.node.map_aggregate(output.args[0], _named_output)
        self.output_names = tuple(dict.fromkeys(name.text for name in _names(self.structure)))
        #: Shapes [1, ...] of the inputs it was traced with.
        self.input_shapes = {node.meta["label"]: (1, *node.meta["shape"][1:]) for node in layers.inputs}
        #: What calibration chose, for reports: tensor name -> plain values.
        self.observer_choices: dict[str, dict[str, Any]] = {}
        #: What repair passes did, in their order, for reports: plain values.
        self.repairs: list[dict[str, Any]] = []
        #: Layers whose upper clamp a repair pass took off.
        self.unclamped: list[str] = []
        self._observers: dict[str, Observer] | None = None
        #: Makes the observers of ``start_observing``.
        self.default_observer: Callable[[], Observer] = MinMax
        self._qat_observer = qat_observer
        self._qat_steps = 0
        #: For each step, the tensors that nobody reads after it.
        self.freed = _last_uses(self.steps, self.output_names)

    def forward(self, *images: Tensor) -> Any:
        """Floats in, floats out, nested as by the float network."""
        if self._observers is not None:
            with torch.no_grad():
                values = self.float_values(images, self._observe)
            return _filled(self.structure, values)
        if self.training:
            self._follow_ranges(images)
        integers = self.integer_values(images)
        return _filled(self.structure, {name: float_input(integers[name]) for name in self.output_names})

    def integer_values(self, images: Sequence[Tensor], taps: Sequence[str] = ()) -> dict[str, QTensor]:
        """The integer outputs, and further tensors by name."""
        values: dict[str, QTensor] = {
            name: self._input(name).quantize(image) for name, image in self._named(images).items()
        }
        with exact.exact_convolutions():
            for step, freed in zip(self.steps, self.freed, strict=True):
                values[step.name] = self._run(step, lambda layer, inputs: layer.integer_forward(*inputs), values)
                for name in freed:
                    if name not in taps:
                        del values[name]
        return values

    def float_values(
        self, images: Sequence[Tensor], look: Callable[[str, Tensor], None] | None = None, keep: bool = False
    ) -> dict[str, Tensor]:
        """The float outputs; ``look`` sees each tensor that has a scale of its own, ``keep`` returns all tensors."""
        values: dict[str, Tensor] = dict(self._named(images))
        if look is not None:
            for name, value in values.items():
                look(name, value)
        for step, freed in zip(self.steps, self.freed, strict=True):
            values[step.name] = self._run(step, lambda layer, inputs: layer.float_forward(*inputs), values)
            if look is not None and self.layer(step.name).own_scale:
                look(step.name, values[step.name])
            for name in () if keep else freed:
                del values[name]
        return values

    def nested(self, outputs: Mapping[str, Tensor]) -> Any:
        """Outputs by name, nested as by the float network."""
        return _filled(self.structure, outputs)

    def layer(self, name: str) -> Layer:
        """The layer that makes a tensor."""
        if name in self.inputs:
            return self._input(name)
        key = next(step.key for step in self.steps if step.name == name)
        return self.layers[key]  # type: ignore[return-value]

    def scaled_layers(self) -> Iterator[tuple[str, Layer]]:
        """Inputs and layers with a scale of their own, by tensor name."""
        for name, layer in self.inputs.items():
            yield name, layer  # type: ignore[misc]
        for step in self.steps:
            layer = self.layers[step.key]
            if layer.own_scale:
                yield step.name, layer  # type: ignore[misc]

    def start_observing(self, make: Callable[[], Observer] | None = None) -> None:
        """From now on run in float and look at every tensor that needs a scale."""
        make = make or self.default_observer
        self._observers = {name: make() for name, layer in self.scaled_layers() if not getattr(layer, "fixed", False)}

    @contextmanager
    def in_float(self) -> Iterator[None]:
        """Inside the block it is the float network; nothing is observed."""
        observers, self._observers = self._observers, {}
        try:
            yield
        finally:
            self._observers = observers

    def finish_observing(self, strict: bool = True) -> None:
        """Turn what was seen into scales.

        A tensor that was 0 throughout gets 1 / qmax, so that it stays 0 and small values elsewhere remain legal.

        Raises
        ------
        QuantizationError
            No data, NaN or infinite values (with ``strict``): names the layer and the cause.
        """
        assert self._observers is not None, "start_observing comes first"
        observers, self._observers = self._observers, None
        self._set_scales(observers, strict)

    def observers(self) -> Mapping[str, Observer]:
        """The observers at work, by tensor name."""
        return self._observers or {}

    def quant_notes(self) -> dict[str, list[str]]:
        """Layers whose integers are not the plain ones: dead and degenerate channels, raised scales."""
        notes = {step.name: self.layer(step.name).notes() for step in self.steps}
        return {name: said for name, said in notes.items() if said}

    def opaque_layers(self) -> dict[str, Layer]:
        """Layers without integer form, by tensor name."""
        layers = {step.name: self.layer(step.name) for step in self.steps}
        return {name: layer for name, layer in layers.items() if not layer.integer}

    def get_extra_state(self) -> dict[str, Any]:
        """How the scales came about; part of the ``state_dict``."""
        return {"observer_choices": self.observer_choices, "repairs": self.repairs, **chosen_forms(self)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over what ``get_extra_state`` returned."""
        self.observer_choices = dict(state.get("observer_choices", {}))
        self.repairs = list(state.get("repairs", []))
        take_forms(self, state)

    def _set_scales(self, observers: Mapping[str, Observer], strict: bool) -> None:
        for name, observer in observers.items():
            layer = self.layer(name)
            if strict and (observer.batches == 0 or observer.defect):
                raise QuantizationError(
                    "the layer's scale cannot be calibrated",
                    where=str(layer.source) or name,
                    seen=f"{observer.defect} in its output" if observer.defect else "no data",
                    remedy=_REMEDY_DEFECT if observer.defect else _REMEDY_EMPTY,
                )
            threshold = observer.threshold(INT_RANGE[layer.dtype][1])
            layer.scale.fill_(safe_scale(threshold, layer.dtype))

    def _observe(self, name: str, values: Tensor) -> None:
        if self._observers is not None and name in self._observers:
            self._observers[name].update(values)

    def _follow_ranges(self, images: Sequence[Tensor]) -> None:
        """QAT: take missing scales from the first batch, and follow the ranges if an observer was asked for."""
        missing = any(float(layer.scale) == 0.0 for _, layer in self.scaled_layers())
        due = self._qat_observer is not None and self._qat_steps % QAT_OBSERVE_STEPS == 0
        self._qat_steps += 1
        if not missing and not due:
            return
        if missing:
            self.start_observing(MinMax)
        elif self._observers is None:
            self.start_observing(self._qat_observer or MinMax)
        with torch.no_grad():
            self.float_values([image[: None if missing else QAT_OBSERVE_SAMPLES] for image in images], self._observe)
        if missing:
            self.finish_observing()
            return
        observers, self._observers = self._observers or {}, None
        for name, observer in observers.items():
            layer = self.layer(name)
            seen = safe_scale(observer.threshold(INT_RANGE[layer.dtype][1]), layer.dtype)
            layer.scale.lerp_(torch.tensor(seen).to(layer.scale), 0.1)

    def _input(self, name: str) -> Input:
        return self.inputs[name]  # type: ignore[return-value]

    def _named(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        if len(images) != len(self.inputs):
            raise QuantizationError(
                "the network takes another number of inputs", seen=str(len(images)), allowed=", ".join(self.inputs)
            )
        return dict(zip(self.inputs, images, strict=True))

    def _run(self, step: Step, run: Callable[[Layer, tuple[Any, ...]], Any], values: Mapping[str, Any]) -> Any:
        layer: Any = self.layers[step.key]
        try:
            return run(layer, tuple(values[name] for name in step.inputs))
        except (RuntimeError, ValueError, IndexError) as error:
            given = (values[name] for name in step.inputs)
            shapes = [tuple((x.values if isinstance(x, QTensor) else x).shape) for x in given]
            traced = ", ".join(f"{name} {shape}" for name, shape in self.input_shapes.items())
            raise QuantizationError(
                f"the layer fails on inputs of shape {shapes}",
                where=str(layer.source) or step.name,
                seen=str(error).splitlines()[0],
                allowed=f"the network was traced for {traced}",
                remedy="feed images of that size, or prepare the network again for this size",
            ) from error


_REMEDY_EMPTY = "calibrate with at least one batch: check the calibration data loader and num_steps"
_REMEDY_DEFECT = "look at the float network: predict --stage float must give finite outputs on these images"


class _Name:
    """A tensor's name in the nested outputs."""

    def __init__(self, text: str) -> None:
        self.text = text


def _labels(nodes: Sequence[fx.Node]) -> tuple[str, ...]:
    return tuple(node.meta["label"] for node in nodes)


def _named_output(value: Any) -> Any:
    return _Name(value.meta["label"]) if isinstance(value, fx.Node) else value


def _filled(structure: Any, values: Mapping[str, Tensor]) -> Any:
    if isinstance(structure, _Name):
        return values[structure.text]
    if isinstance(structure, Mapping):
        return {key: _filled(item, values) for key, item in structure.items()}
    if isinstance(structure, (list, tuple)):
        made = [_filled(item, values) for item in structure]
        return made if isinstance(structure, list) else tuple(made)
    return structure


def _names(structure: Any) -> Iterator[_Name]:
    if isinstance(structure, _Name):
        yield structure
    elif isinstance(structure, Mapping):
        for item in structure.values():
            yield from _names(item)
    elif isinstance(structure, (list, tuple)):
        for item in structure:
            yield from _names(item)


def _last_uses(steps: Sequence[Step], outputs: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """For each step, the tensors that nobody reads after it."""
    last = {name: index for index, step in enumerate(steps) for name in step.inputs}
    freed: list[list[str]] = [[] for _ in steps]
    for name, index in last.items():
        if name not in outputs:
            freed[index].append(name)
    return tuple(map(tuple, freed))
