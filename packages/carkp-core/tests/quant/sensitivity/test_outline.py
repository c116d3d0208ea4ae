"""Who chose a scale, and what equalization may touch."""

from __future__ import annotations

import torch
from exact_networks import calibrated
from sensitive_nets import DepthwiseNet, healthy, images
from torch import Tensor, nn

from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.sensitivity.findings import findings
from carkp_core.quant.sensitivity.measurement import measure
from carkp_core.quant.sensitivity.mixed import MixedNetwork
from carkp_core.quant.sensitivity.outline import Offer, Outline, outline
from carkp_core.quant.settings import observer_factory


def of(network: QuantizedNetwork, observer: str = "") -> Outline:
    return outline(MixedNetwork(network), observer)


def test_a_layer_says_who_chose_its_scale() -> None:
    network = healthy()
    assert of(network).layers["stem"].observer == "min_max"
    assert of(network).layers["img"].observer == "fixed"
    network.observer_choices = {}
    assert of(network, "percentile").layers["stem"].observer == "percentile"


def test_a_scale_that_was_changed_since_is_called_so() -> None:
    network = healthy()
    network.layer("stem").set_scale(2 * float(network.layer("stem").scale))
    assert of(network).layers["stem"].observer == "min_max, changed since"


def test_an_observer_that_chose_names_its_choice_and_what_it_had_to_choose_from() -> None:
    network = calibrated(DepthwiseNet(), images())
    network.start_observing(observer_factory("mix", {}))
    network(images())
    network.finish_observing(batches=[(images(4, seed=9),)])
    found = of(network).layers["stem"]
    record = network.observer_choices["stem"]
    assert record["errors"]
    assert found.observer == f"mix: {record['choice']}"
    assert Offer("mse", record["thresholds"]["mse"], record["errors"]["mse"]) in found.offers


def test_repairs_are_named() -> None:
    network = healthy()
    rounded = {"repair": "AdaRound", "layers": {"head": {"changed_weights": 3}}}
    network.repairs = [{"repair": "CrossLayerEqualization", "by": "ranges"}, rounded]
    found = of(network).layers
    assert found["head"].repairs == ("CrossLayerEqualization", "AdaRound")
    assert found["stem"].repairs == ("CrossLayerEqualization",), "its weights were not among those that learned"


def test_a_layer_knows_what_it_reads_even_behind_moves() -> None:
    found = of(healthy()).layers
    assert found["depthwise"].reads == "stem"
    assert found["depthwise2"].reads == "project", "a max pooling lies between"
    assert found["img"].reads == ""


class Twice(nn.Module):
    """One convolution used twice, and another once."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.again = nn.Conv2d(3, 3, 1)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(torch.relu(self.again(x))))


def test_weights_that_two_layers_have_are_shared() -> None:
    mixed = MixedNetwork(calibrated(Twice(), images(), input_scales={"img": 1 / 128}))
    layers = outline(mixed).layers
    assert len([name for name, layer in layers.items() if layer.shared]) == 2
    assert not layers["head"].shared
    found = findings([measure(mixed, [images()])], outline(mixed))
    assert {layer.name: layer.shared for layer in found.layers} == {k: layer.shared for k, layer in layers.items()}
