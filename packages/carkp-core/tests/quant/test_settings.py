"""Observers by name: core's, a plugin's, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from carkp_core.catalog import Catalog, Component
from carkp_core.errors import ConfigError
from carkp_core.quant.observers import MinMax, Mix, Percentile
from carkp_core.quant.settings import observer_factory, quant_settings, range_follower


class Doubled(MinMax):
    """A plugin's observer."""

    name = "doubled"

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self._factor = factor

    def threshold(self, levels: int) -> float:
        return self._factor * self.absmax


CATALOG = Catalog(
    [Component("observer", "doubled", f"{__name__}:Doubled"), Component("callback", "Linear", "torch.nn:Identity")]
)


def test_cores_observers_take_the_configs_arguments() -> None:
    assert isinstance(observer_factory("percentile", {"percentile": 99.0})(), Percentile)
    mix = observer_factory("mix", {"percentiles": [99.0]})()
    assert isinstance(mix, Mix)
    mix.update(torch.randn(1000))
    assert list(mix.candidates(127)) == ["min_max", "percentile 99", "mse", "kl"]


def test_a_plugins_observer_is_made_like_cores() -> None:
    made = observer_factory("doubled", {"factor": 3.0}, CATALOG)()
    made.update(torch.tensor([1.0, -2.0]))
    assert made.candidates(127) == {"doubled": 6.0}


def test_what_is_no_observer_is_refused() -> None:
    with pytest.raises(ConfigError, match="'Linear' is not an observer") as caught:
        observer_factory("Linear", {}, CATALOG)
    assert "Observer" in (caught.value.allowed or "")
    with pytest.raises(ConfigError, match="did you mean 'mix'"):
        observer_factory("mx", {})
    with pytest.raises(ConfigError, match="cannot be made"):
        observer_factory("mse", {"candidate": 3})


@pytest.mark.parametrize(
    ("params", "where", "said"),
    [
        (["kl"], "", "not a mapping"),
        ({5: "kl"}, "", "unknown key 5"),
        ({"activation_calibration_observer": 5}, ".activation_calibration_observer", "named by a text"),
        ({"weight_qat_observer": ["learned"]}, ".weight_qat_observer", "named by a text"),
        ({"activation_calibration_qkwargs": [1]}, ".activation_calibration_qkwargs", "not a mapping"),
    ],
)
def test_settings_of_another_type_are_named(params: Any, where: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        quant_settings("fuse_bn", params)
    assert caught.value.where == f"model_convert_pipeline.qconfig_params{where}"


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("kl", {"candidates": 2.5}),
        ("mse", {"candidates": "many"}),
        ("mix", {"percentiles": 99.9}),
        ("moving_average", {"averaging_constant": "a"}),
        ("doubled", {"factor": [2]}),
    ],
)
def test_arguments_of_another_type_are_named(name: str, kwargs: dict[str, Any]) -> None:
    (key,) = kwargs
    with pytest.raises(ConfigError, match=f"{name}: the argument '{key}' has another type"):
        observer_factory(name, kwargs, CATALOG)


@pytest.mark.parametrize("name", ["kl", "mse"])
def test_a_whole_number_may_be_written_as_a_float(name: str) -> None:
    thresholds = []
    for candidates in (100, 1e2):
        made = observer_factory(name, {"candidates": candidates})()
        made.update(torch.linspace(-1.0, 1.0, 500))
        thresholds.append(made.threshold(127))
    assert thresholds[0] == thresholds[1] > 0.0


def test_a_share_that_is_no_number_is_named_in_qat_too() -> None:
    params = {"activation_qat_observer": "moving_average", "activation_qat_qkwargs": {"averaging_constant": "a"}}
    with pytest.raises(ConfigError, match="'averaging_constant' has another type"):
        range_follower(quant_settings("fuse_bn", params))
