"""What the float network's tensors look like on some batches, channel by channel or one number for each.

Legend: ``V`` the variables of ``channel_scales``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen
from torch import Tensor

from carkp_core.errors import QuantizationError
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.channel_scales import ChannelScales
from carkp_core.quant.repair.repair import InputBatch

Floats = npt.NDArray[np.float64]

#: Samples that go through the network at once: their tensors should stay near the cache.
SAMPLES_AT_ONCE = 16


@frozen(eq=False)
class ChannelRanges:
    """Of each tensor with a scale of its own: greatest magnitude and mean square by variable, [V] (0 where absent)."""

    absmax: dict[str, Floats]
    mean_square: dict[str, Floats]


def portions(batches: Sequence[InputBatch]) -> Iterator[InputBatch]:
    """The samples of all batches, a few at a time."""
    for batch in batches:
        for start in range(0, len(batch[0]), SAMPLES_AT_ONCE):
            yield tuple(image[start : start + SAMPLES_AT_ONCE] for image in batch)


def channel_ranges(network: QuantizedNetwork, batches: Sequence[InputBatch], scales: ChannelScales) -> ChannelRanges:
    """Run the float network and look at every tensor that has a scale of its own.

    Raises
    ------
    QuantizationError
        A tensor is not finite; names its layer.
    """
    count = scales.count + 1
    ids = {
        name: torch.from_numpy(np.ascontiguousarray(found.reshape(-1))) % count
        for name, found in scales.tensors.items()
    }
    absmax = {name: torch.zeros(count) for name in ids}
    total = {name: torch.zeros(count, dtype=torch.float64) for name in ids}
    samples = 0

    def look(name: str, values: Tensor) -> None:
        if not bool(torch.isfinite(values).all()):
            raise QuantizationError(
                "the layer's channels cannot be equalized",
                where=str(network.layer(name).source) or name,
                seen="values that are not finite in its output, on held-back batches",
                remedy="look at the float network: predict --stage float must give finite outputs on these images",
            )
        magnitude = values.abs().amax(dim=0).reshape(-1).cpu()
        square = values.double().square().sum(dim=0).reshape(-1).cpu()
        absmax[name].scatter_reduce_(0, ids[name], magnitude.float(), "amax")
        total[name].scatter_add_(0, ids[name], square)

    with torch.no_grad():
        for images in portions(batches):
            samples += len(images[0])
            network.float_values(images, look)
    mean = {}
    for name, sums in total.items():
        elements = torch.bincount(ids[name], minlength=count).clamp_min(1) * max(samples, 1)
        mean[name] = (sums / elements).numpy()[:-1]
    return ChannelRanges({name: value.double().numpy()[:-1] for name, value in absmax.items()}, mean)
