"""The converters that a config's ``ModelConvertPipeline`` names: Float2Calibration, Float2QAT, QAT2Quantize ...

Each takes a model and returns it with its deployable part (``model.network``, or the whole model) replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from carkp_core.errors import ConfigError, QuantizationError
from carkp_core.ir.graph import Graph
from carkp_core.quant.convert import convert
from carkp_core.quant.integer_model import read_integer_graph
from carkp_core.quant.integer_network import IntegerNetwork
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.prepare import prepare
from carkp_core.quant.settings import QuantSettings, observer_factory, quant_settings

log = logging.getLogger(__name__)


class _Converter:
    """What the three share: arguments, and the part of the model that is replaced."""

    def __init__(self, convert_mode: str, example_inputs: Any, context: Any) -> None:
        if convert_mode != "fx":
            raise ConfigError(f"{type(self).__name__}: unknown convert_mode {convert_mode!r}", allowed="fx")
        self._example_inputs = example_inputs
        self._context = context
        self._settings = QuantSettings()

    def configure(self, qat_mode: str | None = None, qconfig_params: Mapping[str, Any] | None = None) -> None:
        """Take over what the pipeline says for all its converters. Raises ConfigError for unknown names."""
        self._settings = quant_settings(qat_mode, qconfig_params)

    def _examples(self) -> Mapping[str, Tensor]:
        given = self._example_inputs
        if given is None and self._context is not None:
            given = self._context.example_inputs
        given = given() if callable(given) else given
        if not given:
            raise QuantizationError(
                f"{type(self).__name__} needs an example input to trace the network",
                remedy="add deploy_inputs=dict(img=torch.randn(1, 3, H, W)) to the config",
            )
        return given  # type: ignore[no-any-return]

    def _prepared(self, network: nn.Module) -> QuantizedNetwork:
        scales = {} if self._context is None else dict(self._context.input_scales)
        return prepare(
            network,
            self._examples(),
            context=self._context,
            settings=self._settings,
            input_scales=scales,
        )


class Float2Calibration(_Converter):
    """Replace the deployable network by a quantized one that is to be calibrated.

    ``model.network.start_observing()`` uses the observer that ``qconfig_params`` names.
    """

    def __init__(self, convert_mode: str = "fx", example_inputs: Any = None, context: Any = None) -> None:
        super().__init__(convert_mode, example_inputs, context)

    def __call__(self, model: nn.Module) -> nn.Module:
        """Convert."""
        network = self._prepared(deployed(model))
        catalog = None if self._context is None else self._context.catalog
        factory = observer_factory(self._settings.calibration_observer, self._settings.calibration_kwargs, catalog)
        network.default_observer = factory
        return replaced(model, network)


class Float2QAT(_Converter):
    """Replace the deployable network by a quantized one that is to be trained. A quantized network stays as it is.

    Scales come from a calibration checkpoint loaded afterwards, or from the first batch.
    """

    def __init__(
        self, convert_mode: str = "fx", example_inputs: Any = None, qat_mode: str | None = None, context: Any = None
    ) -> None:
        super().__init__(convert_mode, example_inputs, context)
        self._own_mode = qat_mode
        if qat_mode is not None:
            self._settings = quant_settings(qat_mode)

    def configure(self, qat_mode: str | None = None, qconfig_params: Mapping[str, Any] | None = None) -> None:
        super().configure(self._own_mode or qat_mode, qconfig_params)

    def __call__(self, model: nn.Module) -> nn.Module:
        """Convert."""
        network = deployed(model)
        if isinstance(network, QuantizedNetwork):
            network.train()
            return model
        return replaced(model, self._prepared(network).train())


class LoadIntegerModel:
    """Replace the deployable network by the integer model that ``train --stage int_infer`` wrote.

    Parameters
    ----------
    path:
        The model's binary form; by default the config's own.

    Raises
    ------
    CheckpointError
        When it does not exist, or was converted for another march.
    """

    def __init__(self, path: str | Path | None = None, *, context: Any) -> None:
        self._path = None if path is None else Path(path)
        self._context = context

    def __call__(self, model: nn.Module) -> nn.Module:
        """Read and replace."""
        graph = read_integer_graph(self._context, self._path)
        return replaced(model, integer_network(graph, self._context))


class QAT2Quantize(_Converter):
    """Replace a calibrated or trained network by its integer model, run by the march's simulator.

    Without any backend the reference executor runs it, slowly, and one line says so.
    """

    def __init__(
        self, convert_mode: str = "fx", metadata: Mapping[str, str] | None = None, context: Any = None
    ) -> None:
        super().__init__(convert_mode, None, context)
        self._metadata = dict(metadata or {})

    def derived_from(self, sources: Sequence[Mapping[str, str]]) -> None:
        """Take note of the checkpoints that the pipeline has loaded; the last one is what is converted."""
        if sources:
            origin = {f"source_{key}": str(value) for key, value in sources[-1].items()}
            self._metadata = origin | self._metadata

    def __call__(self, model: nn.Module) -> nn.Module:
        """Convert."""
        network = deployed(model)
        if not isinstance(network, QuantizedNetwork):
            raise QuantizationError(
                "QAT2Quantize needs a calibrated or trained quantized network",
                seen=type(network).__name__,
                remedy="put Float2Calibration (or Float2QAT) and LoadCheckpoint before it in converters",
            )
        name = "model" if self._context is None else self._context.task or "model"
        march = {} if self._context is None else {"march": self._context.march, "network": self._context.network_digest}
        graph = convert(network.eval(), name, None, march | self._metadata)
        return replaced(model, integer_network(graph, self._context))


def integer_network(graph: Graph, context: Any) -> IntegerNetwork:
    """An integer model on the march's simulator, or on the reference executor when no backend is installed."""
    backend = None if context is None else context.backend_or_none()
    if backend is None:
        log.warning("no NPU backend is installed: int_infer runs on the slow reference executor")
    return IntegerNetwork(graph, None if backend is None else backend.simulate(graph, context.threads))


def deployed(model: nn.Module) -> nn.Module:
    """The part of a model that is quantized: its ``network``, or all of it."""
    network = getattr(model, "network", None)
    return network if isinstance(network, nn.Module) else model


def replaced(model: nn.Module, network: nn.Module) -> nn.Module:
    """The model with another deployable part."""
    if isinstance(getattr(model, "network", None), nn.Module):
        model.network = network
        return model
    return network
