"""The quantized network: layers run one after the other, in float to observe, in integers to evaluate and to train.

In evaluation the outputs are those of the integer model, bit for bit, times their scales. In training the forward
values are the same and gradients pass straight through the roundings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

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
from carkp_core.quant.input import Input
from carkp_core.quant.layer import Layer, float_input
from carkp_core.quant.nesting import Nesting
from carkp_core.quant.observers import MinMax, Observer
from carkp_core.quant.ops.weighted import Weighted
from carkp_core.quant.ranges import LOOK_SAMPLES, RangeFollower, joint_samples, main_process_says
from carkp_core.quant.scales import HEADROOM, fix_scales, require_usable
from carkp_core.quant.step_gradient import LearnedStep, at_the_ends, learning, with_slope
from carkp_core.quant.types import chosen_forms, take_forms


@frozen
class Step:
    """One layer's turn: the tensor it makes and the tensors it reads."""

    name: str
    key: str
    inputs: tuple[str, ...]


class QuantizedNetwork(nn.Module):
    """A network of quantized layers.

    Its ``state_dict`` holds the float weights and the scales, which is all that its integers are made from, and how
    they came about.

    Parameters
    ----------
    layers:
        What the passes made.
    input_scales:
        Input name -> step, where it is fixed.
    follower:
        Lets the scales follow the ranges while training; None keeps them.
    """

    def __init__(
        self,
        layers: LayerGraph,
        input_scales: Mapping[str, float] | None = None,
        follower: RangeFollower | None = None,
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
        #: How the float network nests its outputs.
        self.nesting = Nesting.of(next(node for node in layers.graph.nodes if node.op == "output"))
        self.output_names = self.nesting.names
        #: Shapes [1, ...] of the inputs it was traced with.
        self.input_shapes = {node.meta["label"]: (1, *node.meta["shape"][1:]) for node in layers.inputs}
        #: What ties the layers to these sizes; empty when they follow other ones (``quant.image_size``).
        self.built_in_size = ""
        #: What calibration chose, for reports: tensor name -> plain values.
        self.observer_choices: dict[str, dict[str, Any]] = {}
        #: What repair passes did, in their order, for reports: plain values.
        self.repairs: list[dict[str, Any]] = []
        #: Layers whose upper clamp a repair pass took off.
        self.unclamped: list[str] = []
        #: How channels were scaled, pass by pass, so that the float network can be scaled alike: plain values.
        self.equalizations: list[dict[str, Any]] = []
        self._observers: dict[str, Observer] | None = None
        #: At the inputs whose scale is given: only for what is wrong with them.
        self._watched: dict[str, Observer] = {}
        #: Makes the observers of ``start_observing``.
        self.default_observer: Callable[[], Observer] = MinMax
        self._follower = follower
        #: Training steps seen, of which some look at the ranges.
        self._followed_steps = 0
        self._batch_norm_frozen = self._scales_frozen = False
        #: No scale is missing: asked once, not at every training step, and again after a state was loaded.
        self._scales_found = False
        self.register_load_state_dict_post_hook(_look_again_for_scales)  # type: ignore[no-untyped-call]
        #: For each step, the tensors that nobody reads after it.
        self.freed = _last_uses(self.steps, self.output_names)

    def forward(self, *images: Tensor) -> Any:
        """Floats in, floats out, nested as by the float network."""
        if self._observers is not None:
            with torch.no_grad():
                values = self.float_values(images, self._observe)
            return self.nested(values)
        if self.training:
            self._find_missing_scales(images)
            self._follow_ranges(images)
        integers = self.integer_values(images)
        return self.nested({name: float_input(integers[name]) for name in self.output_names})

    def integer_values(self, images: Sequence[Tensor], taps: Sequence[str] = ()) -> dict[str, QTensor]:
        """The integer outputs, and further tensors by name."""
        values: dict[str, QTensor] = {
            name: _in_integers(self._input(name), self._input(name).quantize, image)
            for name, image in self._named(images).items()
        }
        with exact.exact_convolutions():
            for step, freed in zip(self.steps, self.freed, strict=True):
                values[step.name] = self._run(
                    step, lambda layer, inputs: _in_integers(layer, layer.integer_forward, *inputs), values
                )
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
        return self.nesting.filled(outputs)

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
        fixed = {name for name, layer in self.inputs.items() if cast("Input", layer).fixed}
        self._observers = {name: make() for name, _ in self.scaled_layers() if name not in fixed}
        self._watched = {name: MinMax() for name in fixed}

    @contextmanager
    def in_float(self, make: Callable[[], Observer] | None = None) -> Iterator[None]:
        """Inside the block it is the float network, looked at by nobody, or by observers that go with the block."""
        before = self._observers, self._watched
        self._observers, self._watched = {}, {}
        try:
            if make is not None:
                self.start_observing(make)
            yield
        finally:
            self._observers, self._watched = before

    def finish_observing(self, strict: bool = True, batches: Iterable[Sequence[Tensor]] = ()) -> None:
        """Turn what was seen into scales, and keep a record of it in ``observer_choices``.

        A tensor that was 0 throughout gets 1 / qmax, so that it stays 0 and small values elsewhere remain legal.

        Parameters
        ----------
        strict:
            Refuse values that no scale can be found for.
        batches:
            Inputs that were not observed, for observers that choose (``mix``).

        Raises
        ------
        QuantizationError
            No data, NaN or infinite values (with ``strict``): names the layer and the cause.
        """
        assert self._observers is not None, "start_observing comes first"
        if strict:
            self.require_finite()
        observers, self._observers = self._observers, None
        self.observer_choices = fix_scales(self, observers, strict, batches)

    def require_finite(self, where: str = "") -> None:
        """Raise QuantizationError naming the first layer that made NaN or infinite values, and ``where`` that was."""
        observers = self._watched | dict(self.observers())
        for name, observer in observers.items():
            if observer.defect:
                require_usable(name, self.layer(name), observer, where)

    @property
    def chooses(self) -> bool:
        """True when the observers at work choose by batches that were not observed."""
        return any(observer.chooses for observer in self.observers().values())

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

    def learn_scales(self, weights: bool = False) -> None:
        """Make the scales parameters, for QAT: those of activations but for fixed inputs, or those of weights."""
        self._scales_found = False
        for module in self.modules():
            if isinstance(module, Weighted) and weights:
                module.learn_weight_scale()
            if isinstance(module, Layer) and not weights and not getattr(module, "fixed", False):
                module.learn_scale()

    def freeze_batch_norm(self) -> None:
        """From now on train with the running statistics: the training forward equals the evaluation forward."""
        if not self._batch_norm_frozen:
            self._batch_norm_frozen = True
            self.train(self.training)

    def freeze_scales(self) -> None:
        """From now on the scales follow no ranges. Learned ones are the optimizer's: drop their gradients."""
        self._scales_frozen = True

    def train(self, mode: bool = True) -> QuantizedNetwork:
        super().train(mode)
        if self._batch_norm_frozen:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """How the scales came about, and how many steps have trained them; part of the ``state_dict``."""
        return {
            "observer_choices": self.observer_choices,
            "repairs": self.repairs,
            "followed_steps": self._followed_steps,
            **chosen_forms(self),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over what ``get_extra_state`` returned."""
        self.observer_choices = dict(state.get("observer_choices", {}))
        self.repairs = list(state.get("repairs", []))
        take_forms(self, state)
        self._followed_steps = int(state.get("followed_steps", 0))

    def _observe(self, name: str, values: Tensor) -> None:
        if self._observers:
            observer = self._observers.get(name) or self._watched.get(name)
            if observer is not None:
                observer.update(values)

    def _find_missing_scales(self, images: Sequence[Tensor]) -> None:
        """QAT without calibration: scales that are 0 come from the first batch, learned ones of weights from these."""
        if self._scales_found:
            return
        for module in self.layers.values():
            if isinstance(module, Weighted):
                module.find_weight_scale()
        missing = [name for name, layer in self.scaled_layers() if float(layer.scale.detach()) == 0.0]
        if missing:
            observers = self._looked_at(joint_samples(images, None), MinMax)
            self.observer_choices |= fix_scales(self, {name: observers[name] for name in missing})
            found = main_process_says({name: float(self.layer(name).scale.detach()) for name in missing})
            for name, scale in found.items():
                self.layer(name).set_scale(scale)
        self._scales_found = True

    def _follow_ranges(self, images: Sequence[Tensor]) -> None:
        """QAT: move the scales towards the present ranges, if that was asked for and it is time."""
        follower, step = self._follower, self._followed_steps
        self._followed_steps += 1
        if follower is None or self._scales_frozen or not follower.due(step):
            return
        observers = self._looked_at(joint_samples(images, LOOK_SAMPLES), follower.make)
        layers = {name: self.layer(name) for name in observers}
        limits = {name: observers[name].threshold(INT_RANGE[layer.dtype][1]) for name, layer in layers.items()}
        for name, limit in main_process_says(limits).items():
            if limit == 0.0:  # zeros alone say nothing of the range
                continue
            dtype, scale = layers[name].dtype, float(layers[name].scale.detach())
            seen = safe_scale(limit * (HEADROOM if dtype == "int16" else 1.0), dtype)
            layers[name].set_scale(scale + follower.averaging_constant * (seen - scale))

    def _looked_at(self, images: Sequence[Tensor], make: Callable[[], Observer]) -> Mapping[str, Observer]:
        """Observers that have seen the float network on these images, and nothing but finite values."""
        self.start_observing(make)
        observers = self.observers()
        try:
            with torch.no_grad():
                self.float_values(images, self._observe)
        finally:
            self._observers = None
        for name, observer in (self._watched | dict(observers)).items():
            require_usable(name, self.layer(name), observer, "in training")
        return observers

    def _input(self, name: str) -> Input:
        return self.inputs[name]  # type: ignore[return-value]

    def _named(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        if len(images) != len(self.inputs):
            raise QuantizationError(
                "the network takes another number of inputs", seen=str(len(images)), allowed=", ".join(self.inputs)
            )
        named = dict(zip(self.inputs, images, strict=True))
        self.require_sizes({name: tuple(image.shape) for name, image in named.items()})
        return named

    def require_sizes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise QuantizationError when inputs of these shapes would not give what the float network gives."""
        for name, shape in shapes.items():
            if self.built_in_size and shape[1:] != self.input_shapes[name][1:]:
                raise QuantizationError(
                    "the quantized network has its image size built in",
                    where=name,
                    seen=f"{shape[1:]}; {self.built_in_size}",
                    allowed=f"{self.input_shapes[name][1:]}, which it was traced for",
                    remedy="feed images of that size, or set deploy_inputs to this size and calibrate again",
                )

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


def _look_again_for_scales(network: nn.Module, _: Any) -> None:
    """After a state was loaded, by whatever module holds the network; no method, since copies share their hooks."""
    cast("QuantizedNetwork", network)._scales_found = False


def _in_integers(layer: Layer, run: Callable[..., QTensor], *inputs: Any) -> QTensor:
    """Run a layer on whole numbers; in training, with a gradient to its scale if that is learned."""
    scale = layer._parameters.get("scale")
    if scale is None or not (layer.training and torch.is_grad_enabled()):
        return run(*inputs)
    with learning(LearnedStep(scale, layer.dtype)) as step:
        result = run(*inputs)
        values = result.values if step.noted else with_slope(result.values, at_the_ends(result.values, layer.dtype))
    step.features = values[0].numel()
    return QTensor(values, result.scale, result.dtype)


def _labels(nodes: Sequence[fx.Node]) -> tuple[str, ...]:
    return tuple(node.meta["label"] for node in nodes)


def _last_uses(steps: Sequence[Step], outputs: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """For each step, the tensors that nobody reads after it."""
    last = {name: index for index, step in enumerate(steps) for name in step.inputs}
    freed: list[list[str]] = [[] for _ in steps]
    for name, index in last.items():
        if name not in outputs:
            freed[index].append(name)
    return tuple(map(tuple, freed))
