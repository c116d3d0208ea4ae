from __future__ import annotations

import pytest
import torch
from torch import fx

from carkp_core.quant.convert import convert
from carkp_core.quant.nesting import Nesting
from carkp_core.quant.prepare import prepare


def nesting(make):
    graph = fx.Graph()
    nodes = []
    for name in ("a", "b"):
        node = graph.placeholder(name)
        node.meta["label"] = name
        nodes.append(node)
    return Nesting.of(graph.output(make(*nodes)))


@pytest.mark.parametrize(
    ("make", "places", "plain"),
    [
        (lambda a, b: a, ("a",), "a"),
        (lambda a, b: (b, a, b), ("b", "a", "b"), {"tuple": ["b", "a", "b"]}),
        (lambda a, b: {"x": [a, None], "n": b}, ("a", "b"), {"dict": {"x": {"list": ["a", None]}, "n": "b"}}),
    ],
)
def test_places_names_and_json(make, places, plain):
    made = nesting(make)
    assert made.places == places
    assert made.names == tuple(dict.fromkeys(places))
    assert made.to_json() == plain


def test_tensors_are_put_in_their_places_and_the_rest_stays():
    a, b = torch.zeros(1), torch.ones(1)
    filled = nesting(lambda a, b: {"x": [a, (b, None)], "n": b}).filled({"a": a, "b": b})
    assert filled["x"][0] is a
    assert filled["x"][1] == (b, None)
    assert filled["n"] is b


class Labelled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 1)

    def forward(self, img):
        y = self.conv(img)
        return {"map": y, "again": (y, None)}


def test_a_network_may_return_a_tensor_twice_and_none():
    network = prepare(Labelled(), {"img": torch.zeros(1, 3, 4, 4)}, input_scales={"img": 1 / 128})
    network.start_observing()
    network(torch.randn(2, 3, 4, 4))
    network.finish_observing()
    answer = network.eval()(torch.randn(2, 3, 4, 4))
    assert torch.equal(answer["again"][0], answer["map"])
    assert answer["again"][1] is None
    assert convert(network, "m").outputs == ("conv",)
