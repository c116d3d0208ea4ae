"""Does a traced network follow the size of its images, or is the traced size built into it?

A trace has numbers where the network read a shape: ``y / y.shape[-1]`` became ``y / 32``, and
``interpolate(y, x.shape[-2:])`` has a fixed size. At another size such layers would give something else than the
network, without any error. So the layers are held against the network at a second size once, when they are made, while
both have the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from carkp_core.errors import QuantizationError
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.trace import TRACE_BATCH

#: Images of more elements than this are halved for the second size, smaller ones doubled.
_LARGE = 3 * 512 * 512


def built_in_size(network: nn.Module, made: QuantizedNetwork, example_inputs: Mapping[str, Tensor]) -> str:
    """What ties the layers to the traced size, in words; empty when they follow other sizes as the network does.

    Parameters
    ----------
    network, made:
        The traced network, and the layers made of it, which are put into evaluation mode.
    example_inputs:
        What it was traced with, one tensor (1, ...) for each input.
    """
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(_second(value), generator=generator) for value in example_inputs.values()]
    try:
        expected = _called(network, images)
    except Exception as error:  # the network itself does not take that size
        return f"the network itself fails at another size: {str(error).splitlines()[0] if str(error) else error!r}"
    try:
        with torch.no_grad(), made.eval().in_float():
            got = [value for value in tree_flatten(made(*images))[0] if isinstance(value, Tensor)]
    except QuantizationError as error:
        return f"at another size {error.where or 'a layer'} fails"
    if len(expected) != len(got):
        return f"at another size the network has {len(expected)} outputs"
    for name, mine, theirs in zip(made.nesting.places, got, expected, strict=True):
        if difference(mine, theirs):
            return f"at another size {made.layer(name).source or name} has {difference(mine, theirs)}"
    return ""


def difference(got: Tensor, reference: Tensor) -> str:
    """How far a tensor is from what it should be, in words; empty where it is that, or where that is not finite."""
    if got.shape != reference.shape:
        return f"shape {tuple(got.shape)} for {tuple(reference.shape)}"
    if not bool(torch.isfinite(reference).all()):
        return ""
    off, most = float((got - reference).abs().max()), float(reference.abs().max())
    return f"a difference of {off:.3g}" if off > 1e-5 + 1e-3 * most else ""


def _second(example: Tensor) -> tuple[int, ...]:
    """A shape with the last dimensions doubled; [N, C] has no size to change."""
    halved = example[0].numel() > _LARGE
    return (TRACE_BATCH, *example.shape[1:2], *(side // 2 if halved else side * 2 for side in example.shape[2:]))


def _called(network: nn.Module, images: Sequence[Tensor]) -> list[Tensor]:
    """The network's outputs in evaluation mode, on the CPU."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    was_training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            result = network(*(image.to(device) for image in images))
    finally:
        for module, training in was_training.items():
            module.training = training
    return [value.detach().cpu().float() for value in tree_flatten(result)[0] if isinstance(value, Tensor)]
