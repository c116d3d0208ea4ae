"""Observers by name: core's, a plugin's, and what is refused."""

from __future__ import annotations

import pytest
import torch

from carkp_core.catalog import Catalog, Component
from carkp_core.errors import ConfigError
from carkp_core.quant.observers import MinMax, Mix, Percentile
from carkp_core.quant.settings import observer_factory


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
