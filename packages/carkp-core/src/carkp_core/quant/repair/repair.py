"""What a repair pass is. A ``Calibrator`` runs those that its ``repairs`` names, in that order.

::

    before_calibration(network, batches)  float weights may change, no scale is known
            observers see the calibration batches, scales are fixed
    after_calibration(network, batches)   scales are known; ``batches`` were held back from the observers

A pass changes the network in place, and everything that it changes must be in the network's ``state_dict``: the
calibration checkpoint is all that later stages read. What it did is kept in ``network.repairs``: a line that the
calibrator says, and plain values for reports.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from carkp_core.errors import ConfigError
from carkp_core.quant.network import QuantizedNetwork

log = logging.getLogger(__name__)

#: What the network was called with for one batch: a tensor [N, ...] for each of its ``inputs``, in their order.
InputBatch = tuple[Tensor, ...]


class Repair(Protocol):
    """A pass over a quantized network in evaluation mode, at two places of its calibration.

    Both places get the same batches, at least one: ``network(*batch)`` runs the network on them.
    """

    def before_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Change float weights or integer types. No observer has seen anything yet."""

    def after_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Change what the scales have fixed."""


def note(network: QuantizedNetwork, repair: Repair, summary: str, report: dict[str, Any]) -> None:
    """Keep what a pass did: its name, a line for people, and plain values."""
    log.info("%s: %s", type(repair).__name__, summary)
    network.repairs.append({"repair": type(repair).__name__, "summary": summary, **report})


def first_image(batches: Sequence[InputBatch]) -> InputBatch:
    """One sample of each input, (1, ...)."""
    return tuple(image[:1] for image in batches[0])


def matching_layers(network: QuantizedNetwork, pattern: str, who: str) -> list[str]:
    """Layers whose name or module path matches a pattern such as ``decode_head.*``.

    Of a module that became several layers (a linear layer is a convolution between reshapes) those that compute.

    Raises
    ------
    ConfigError
        None does; names some of the layers.
    """
    paths = {step.name: {step.name, network.layer(step.name).source.module_path} for step in network.steps}
    found = [name for name, known in paths.items() if any(fnmatch.fnmatchcase(path, pattern) for path in known)]
    computing = [name for name in found if network.layer(name).own_scale]
    if found:
        return computing or found
    raise ConfigError(
        f"{who}: no layer matches {pattern!r}",
        seen=_some(list(paths)),
        remedy="carkp quant-report lists the layers by name",
    )


def nothing_usable(who: str, asked: str, why_not: Mapping[str, str], allowed: Sequence[str]) -> ConfigError:
    """What to raise where a choice names layers of which a pass can use none.

    Parameters
    ----------
    who, asked:
        The pass, and what its config says.
    why_not:
        The layers that were named, and why each cannot be used.
    allowed:
        Those that can.
    """
    return ConfigError(
        f"{who}: nothing that {asked} names can be used",
        seen=_some([f"{name} {why}" for name, why in why_not.items()]),
        allowed=_some(allowed) or "no layer of this network",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
