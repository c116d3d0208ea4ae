"""Each rule: a layer that it fits, and the nearest one that it does not."""

from __future__ import annotations

import math
from typing import Any

import pytest
from sensitive_nets import layer_findings

from carkp_core.quant.sensitivity import advice
from carkp_core.quant.sensitivity.findings import Candidate

HURT = {"network_alone_db": 20.0}
CLIPS = {"clipping": 0.01, "candidates": (Candidate("mse", 1.6, 4.0), Candidate("kl", 0.7, -3.0))}
WEIGHTS = {"weights_db": 25.0, "output_db": 40.0}


def actions(**changes: Any) -> list[str]:
    return [made.action for made in advice.advise(layer_findings(**changes)).advice]


@pytest.mark.parametrize(
    ("changes", "hurts"),
    [
        ({}, False),
        ({"network_alone_db": 29.9}, True),
        ({"network_alone_db": 30.0}, False),
        ({"network_alone_db": math.inf}, False),
        ({"loss_alone": 0.01, "loss_error": 0.001}, True),
        ({"loss_alone": 0.01, "loss_error": 0.004}, False),
        ({"loss_alone": 0.01, "loss_error": math.nan}, False),
        ({"loss_alone": 0.0019, "loss_error": 0.0}, False),
        ({"loss_alone": -0.01, "loss_error": 0.0}, False),
        ({"loss_alone": 0.01, "loss_error": 0.001, "loss_bound": 0.02}, False),
    ],
)
def test_a_layer_hurts_by_its_noise_or_by_a_sure_loss(changes: dict[str, float], hurts: bool) -> None:
    assert advice.advise(layer_findings(**changes)).hurts is hurts


def test_healthy_layers_get_no_advice_whatever_else_is_true_of_them() -> None:
    assert actions(output_equalized_db=50.0, **CLIPS) == []
    assert actions(weights_equalized_db=50.0, **WEIGHTS) == []


@pytest.mark.parametrize(
    ("changes", "applies"),
    [
        ({"output_equalized_db": 6.0}, True),
        ({"output_equalized_db": 5.9}, False),
        ({"output_equalized_db": 30.0, "repairs": ("CrossLayerEqualization",)}, False),
        ({"output_equalized_db": 30.0, **WEIGHTS}, False),
        ({"weights_equalized_db": 6.0, **WEIGHTS}, True),
        ({"weights_equalized_db": 5.9, **WEIGHTS}, False),
        ({"weights_equalized_db": 30.0}, False),
    ],
)
def test_equalize(changes: dict[str, Any], applies: bool) -> None:
    made = advice.equalize(layer_findings(**changes))
    assert (made is not None) is applies
    if made is not None:
        assert made.action == "equalize"


def test_equalize_says_with_whom_and_how_much_at_most() -> None:
    made = advice.equalize(layer_findings(output_equalized_db=31.4, channel_imbalance=42.3))
    assert made is not None
    assert "the loudest reaches 42.3 times the median one" in made.text
    assert "the layers that read it, 31 dB" in made.text
    assert made.gain_db == 31.4
    other = advice.equalize(layer_findings(weights_equalized_db=16.0, **WEIGHTS))
    assert other is not None
    assert "the layers before it, 16 dB" in other.text


@pytest.mark.parametrize(
    ("changes", "applies"),
    [
        (CLIPS, True),
        ({"candidates": (Candidate("mse", 1.6, 1.4),)}, False),
        ({"candidates": ()}, False),
        ({**CLIPS, **WEIGHTS}, False),
    ],
)
def test_observer(changes: dict[str, Any], applies: bool) -> None:
    made = advice.observer(layer_findings(**changes))
    assert (made is not None) is applies
    if made is not None:
        assert "clips 1 %: the observer mse would take 1.6" in made.text
        assert made.gain_db == 4.0


def test_an_observer_that_wastes_steps_is_called_so() -> None:
    made = advice.observer(layer_findings(candidates=(Candidate("kl", 0.2, 9.0),)))
    assert made is not None
    assert "spends steps on rare values" in made.text


@pytest.mark.parametrize(
    ("changes", "applies"),
    [
        (WEIGHTS, True),
        ({}, False),
        ({**WEIGHTS, "repairs": ("AdaRound",)}, False),
        ({**WEIGHTS, "shared": True}, False),
    ],
)
def test_adaround(changes: dict[str, Any], applies: bool) -> None:
    assert (advice.adaround(layer_findings(**changes)) is not None) is applies


@pytest.mark.parametrize(
    ("changes", "applies"), [({}, True), ({"dtype": "int16"}, False), (WEIGHTS, False), ({"op": "input"}, False)]
)
def test_int16(changes: dict[str, Any], applies: bool) -> None:
    made = advice.int16(layer_findings(**changes))
    assert (made is not None) is applies
    if made is not None:
        assert made.gain_db == pytest.approx(45.0 - 34.5)


def test_the_rules_are_asked_in_their_order() -> None:
    assert actions(**HURT, output_equalized_db=50.0, **CLIPS) == ["equalize"]
    assert actions(**HURT, **WEIGHTS, weights_equalized_db=50.0) == ["equalize"]
    assert actions(**HURT, **WEIGHTS) == ["adaround"]
    assert actions(**HURT) == ["int16"]
    assert actions(**HURT, dtype="int16") == []


def test_int16_stands_behind_what_would_not_suffice() -> None:
    assert actions(network_alone_db=27.0, **CLIPS) == ["observer"]
    assert actions(network_alone_db=20.0, **CLIPS) == ["observer", "int16"]
