from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from carkp_core.errors import ConfigError
from carkp_core.train.convert import QAT_MODES, ModelConvertPipeline


class Wrap:
    """A converter that wants to know the quantization settings."""

    def configure(self, **given: Any) -> None:
        self.given = given

    def __call__(self, model: nn.Module) -> nn.Module:
        return nn.Sequential(model)


def test_converters_run_in_order_and_get_the_settings() -> None:
    first, second = Wrap(), Wrap()
    pipeline = ModelConvertPipeline([first, lambda model: model.eval(), second], "with_bn", {"weight_bits": 8})
    model = pipeline(nn.ReLU())
    assert isinstance(model[0][0], nn.ReLU)  # type: ignore[index]
    assert not model[0].training  # type: ignore[index]
    assert first.given == second.given == {"qat_mode": "with_bn", "qconfig_params": {"weight_bits": 8}}
    assert pipeline.sources == []


@pytest.mark.parametrize("mode", [None, *QAT_MODES])
def test_every_mode_is_known(mode: str | None) -> None:
    assert ModelConvertPipeline(qat_mode=mode).qat_mode == mode


def test_a_misspelt_mode() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fuse_bn'"):
        ModelConvertPipeline(qat_mode="fuse-bn")
