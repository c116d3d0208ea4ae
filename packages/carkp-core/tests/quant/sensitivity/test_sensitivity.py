"""A network broken on purpose: the report names the layers, first, and says what to do."""

from __future__ import annotations

import pytest
from sensitive_nets import broken, healthy, images

from carkp_core.errors import QuantizationError
from carkp_core.quant.repair.equalize import CrossLayerEqualization
from carkp_core.quant.sensitivity import sensitivity, worst_layers


def test_a_healthy_network_has_no_layer_that_hurts() -> None:
    found = sensitivity(healthy(), [(images(8, seed=1),)])
    assert worst_layers(found) == []
    assert all(layer.advice == () for layer in found.layers)


def test_no_batches_are_an_error() -> None:
    with pytest.raises(QuantizationError, match="no batches"):
        sensitivity(healthy(), [])


@pytest.mark.parametrize("names", [("depthwise",), ("depthwise2",), ("depthwise", "depthwise2")])
def test_scaled_channels_are_found_and_to_be_equalized(names: tuple[str, ...]) -> None:
    found = sensitivity(broken(*names), [(images(4, seed=1),), (images(4, seed=2),)])
    worst = found.ranked()[: len(names)]
    assert {layer.name for layer in worst} == set(names)
    assert set(worst_layers(found, len(names))) == set(names)
    for layer in worst:
        assert layer.advice[0].action == "equalize"
        assert layer.output_equalized_db > 30


def test_the_layer_that_undoes_it_is_to_be_equalized_as_well() -> None:
    found = sensitivity(broken("depthwise2"), [(images(8, seed=1),)])
    assert worst_layers(found) == ["depthwise2", "project2"]
    reader = found.ranked()[1]
    assert reader.weights_db < reader.output_db
    assert reader.advice[0].action == "equalize"


def test_channels_made_quiet_are_found_too() -> None:
    found = sensitivity(broken("depthwise2", factor=1 / 50), [(images(8, seed=1),)])
    assert worst_layers(found) == ["depthwise2", "project2"]
    assert [layer.advice[0].action for layer in found.ranked()[:2]] == ["equalize", "equalize"]


def test_equalization_cures_what_the_report_found() -> None:
    batches = [(images(8, seed=1),)]
    network = broken("depthwise", "depthwise2")
    repair = CrossLayerEqualization()
    repair.before_calibration(network, batches)
    network.start_observing()
    network(images())
    network.finish_observing()
    repair.after_calibration(network, batches)
    found = sensitivity(network, batches)
    assert worst_layers(found) == []
    assert found.network_db > sensitivity(broken("depthwise", "depthwise2"), batches).network_db + 10
