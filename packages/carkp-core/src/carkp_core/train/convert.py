"""The conversions that a model goes through before a stage uses it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from carkp_core.errors import ConfigError

Converter = Callable[[nn.Module], nn.Module]

#: How batch norm is treated during quantization-aware training.
QAT_MODES = ("fuse_bn", "with_bn", "with_bn_reverse_fold")


class ModelConvertPipeline:
    """Passes a model through converters, in order.

    Parameters
    ----------
    converters:
        Each takes a model and returns one.
    qat_mode:
        How batch norm is treated, one of ``QAT_MODES``.
    qconfig_params:
        Observers and their arguments. Both are handed to every converter that has
        ``configure(qat_mode=..., qconfig_params=...)``. One that has ``derived_from(sources)`` is told which
        checkpoints were loaded before it.
    """

    def __init__(
        self,
        converters: Sequence[Converter] = (),
        qat_mode: str | None = None,
        qconfig_params: Mapping[str, Any] | None = None,
    ) -> None:
        if qat_mode is not None and qat_mode not in QAT_MODES:
            close = difflib.get_close_matches(str(qat_mode), QAT_MODES, n=1)
            raise ConfigError(
                f"unknown qat_mode {qat_mode!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
                allowed=", ".join(QAT_MODES),
            )
        self.converters = tuple(converters)
        self.qat_mode = qat_mode
        self.qconfig_params = qconfig_params

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the converted model."""
        for converter in self.converters:
            if hasattr(converter, "configure"):
                converter.configure(qat_mode=self.qat_mode, qconfig_params=self.qconfig_params)
            if hasattr(converter, "derived_from"):
                converter.derived_from(self.sources)
            model = converter(model)
        return model

    @property
    def sources(self) -> list[dict[str, str]]:
        """The checkpoints that converters have loaded: path, sha256 and stage of each."""
        return [dict(source) for c in self.converters if (source := getattr(c, "source", None))]
