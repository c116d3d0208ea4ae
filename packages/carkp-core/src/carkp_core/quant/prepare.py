"""Prepare: from a float network to a quantized one, without scales yet. The passes in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from carkp_core.errors import QuantizationError
from carkp_core.quant.annotate import annotate
from carkp_core.quant.fold_batch_norm import fold_batch_norm
from carkp_core.quant.fuse import fuse
from carkp_core.quant.graph import LayerGraph
from carkp_core.quant.image_size import built_in_size, difference
from carkp_core.quant.lower import definitions, lower
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.operators import OperatorDefinition
from carkp_core.quant.settings import LEARNED, QuantSettings, range_follower
from carkp_core.quant.share import share
from carkp_core.quant.simplify import simplify
from carkp_core.quant.trace import TRACE_BATCH, Trace, trace

#: Torch's own modules of many calls, which people know by their name: one opaque layer, not ten.
_COMPOSITES = (nn.MultiheadAttention, nn.RNNBase, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def prepare(
    network: nn.Module,
    example_inputs: Mapping[str, Tensor],
    *,
    context: Any = None,
    settings: QuantSettings | None = None,
    input_scales: Mapping[str, float] | None = None,
) -> QuantizedNetwork:
    """Trace, lower, fold, fuse and annotate a network.

    Parameters
    ----------
    network:
        The deployed part: float tensors in, tensors (nested in lists, tuples, dicts) out.
    example_inputs:
        One tensor (1, ...) for each input, by name.
    context:
        Plugins, march and backend; None for core's operators and int8 everywhere.
    settings:
        What becomes of the scales in QAT, and whether batch norm is folded now (``fuse_bn``) or at each evaluation.
    input_scales:
        Input name -> step, where it is fixed; others are observed.

    Raises
    ------
    QuantizationError
        When the network cannot be traced, or the layers do not give what it returned.
    """
    known = definitions(context)
    traced = trace(network, example_inputs, lambda module: _kept_whole(module, known))
    layers = lower(traced, known)
    settings = settings or QuantSettings()
    fold_batch_norm(layers, settings.qat_mode)
    simplify(layers)
    fuse(layers)
    share(layers)
    annotate(layers, context)
    made = QuantizedNetwork(layers, input_scales, range_follower(settings, context))
    _hold_against(made, traced, layers, example_inputs)
    made.built_in_size = built_in_size(network, made, example_inputs)
    if settings.qat_observer == LEARNED:
        made.learn_scales()
    if settings.weight_qat_observer == LEARNED:
        made.learn_scales(weights=True)
    return made.to(_device(network)).train(network.training)


def _kept_whole(module: nn.Module, known: Sequence[OperatorDefinition]) -> bool:
    return isinstance(module, _COMPOSITES) or any(definition.recognises(module) for definition in known)


def _hold_against(made: QuantizedNetwork, traced: Trace, layers: LayerGraph, example: Mapping[str, Tensor]) -> None:
    """The layers must give what the network returned: a wrong definition or an in-place trick ends here."""
    images = [value.detach().cpu()[:1].expand(TRACE_BATCH, *value.shape[1:]) for value in example.values()]
    made = made.cpu()
    with torch.no_grad():
        values = made.float_values(images)
    results = [value for value in tree_flatten(traced.result)[0] if isinstance(value, Tensor)]
    for name, result in zip(made.nesting.places, results, strict=True):
        seen = difference(values[name].float(), result.as_subclass(Tensor).detach().cpu().float())
        if seen:
            raise QuantizationError(
                "the traced layers do not give what the network returns",
                where=str(made.layer(name).source) or name,
                seen=seen,
                remedy="look for tensors changed in place through a view, and for random calls in forward",
            )


def _device(network: nn.Module) -> torch.device:
    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device
