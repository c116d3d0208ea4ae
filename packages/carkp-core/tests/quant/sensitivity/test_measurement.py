"""What is measured of a batch equals what a plain computation of the same thing gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from exact_networks import calibrated
from sensitive_nets import DepthwiseNet, healthy, images
from torch import Tensor, nn

from carkp_core.errors import QuantizationError
from carkp_core.quant.sensitivity.measurement import SLOTS, BatchSums, measure, measured_layers
from carkp_core.quant.sensitivity.mixed import MixedNetwork, as_float


def energy(values: Tensor) -> float:
    return float((values.detach().double() ** 2).sum())


def rounded(values: Tensor, scale: float) -> Tensor:
    return torch.clamp(torch.round(values.double() / scale), -128, 127).float() * scale


def measured(x: Tensor) -> tuple[MixedNetwork, BatchSums]:
    mixed = MixedNetwork(healthy())
    return mixed, measure(mixed, [x])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_images_that_are_not_finite_are_named(value: float) -> None:
    x = images(2)
    x[1, 2, 3, 4] = value
    with pytest.raises(QuantizationError, match="in the network input") as error:
        measured(x)
    assert error.value.where == "img"
    assert "transforms" in error.value.remedy


def test_the_first_layer_that_is_not_finite_is_named() -> None:
    mixed = MixedNetwork(healthy())
    with pytest.raises(QuantizationError, match="in its output") as error:
        measure(mixed, [torch.full((2, 3, 8, 8), 3e38)], layers=["head"])
    assert error.value.where.startswith("stem (")


class TestOneLayerAlone:
    """``head`` and ``project``, against the float network with one tensor replaced by hand."""

    def test_the_last_convolution(self) -> None:
        x = images(4, seed=2) * 1.3
        mixed, found = measured(x)
        head = next(step for step in mixed.steps if step.name == "head")
        with torch.no_grad():
            floats = mixed.network.float_values([x], keep=True)
            y, z = floats["head"], mixed.with_integer_weights(head, floats)
            alone = rounded(z, mixed.kinds["head"].scale)
            sums = found.layers["head"]
            assert sums.elements == y.numel()
            assert sums.signal == pytest.approx(energy(y))
            assert sums.from_weights == pytest.approx(energy(z - y))
            assert sums.from_output == pytest.approx(energy(rounded(y, mixed.kinds["head"].scale) - y), rel=1e-4)
            assert sums.alone == pytest.approx(energy(alone - y), rel=1e-4)
            (output,) = found.layers["head"].only.noise
            expected = torch.tanh(alone) - torch.tanh(y)
        assert output == pytest.approx(energy(expected), rel=1e-4)

    def test_through_the_rest_of_the_network(self) -> None:
        x = images(4, seed=2)
        mixed, found = measured(x)
        net = DepthwiseNet().eval()

        def replace(_module: nn.Module, _given: Any, result: Tensor) -> Tensor:
            return rounded(result.relu(), mixed.kinds["stem"].scale)

        layer = mixed.network.layer("stem")
        step = next(step for step in mixed.steps if step.name == "stem")
        with torch.no_grad():
            y = net(x)
            constants = layer.integers(1 / 128, "int8", None)  # type: ignore[attr-defined]
            weight = constants.weight.double() * constants.scale_w[:, None]
            net.stem.weight.copy_(weight.reshape(net.stem.weight.shape))
            assert net.stem.bias is not None
            net.stem.bias.copy_(constants.bias * constants.scale_acc)
            net.stem.register_forward_hook(replace)
            expected = energy(net(x) - y)
        assert step.inputs == ("img",)
        assert found.layers["stem"].only.noise[0] == pytest.approx(expected, rel=1e-3)


def test_left_in_float_alone() -> None:
    x = images(4, seed=2)
    mixed, found = measured(x)
    network = mixed.network
    with torch.no_grad():
        reference = network.float_values([x])
        integers = network.integer_values([x], [step.name for step in mixed.steps])
        head = next(step for step in mixed.steps if step.name == "head")
        left = mixed.in_float(head, integers)
        tanh = mixed.steps[-1]
        answer = as_float(mixed.in_integers(tanh, {"head": left}))
        noise = energy(answer - reference[tanh.name])
        whole = energy(as_float(integers[tanh.name]) - reference[tanh.name])
    assert found.layers["head"].without.noise == (pytest.approx(noise),)
    assert found.in_integers.noise == (pytest.approx(whole),)
    assert found.in_float.noise == (0.0,)
    assert found.layers["head"].accumulated == pytest.approx(
        energy(as_float(integers["head"]) - network.float_values([x], keep=True)["head"])
    )


def test_pixels_lose_nothing_and_moves_are_not_measured() -> None:
    mixed, found = measured(images())
    names = measured_layers(mixed)
    assert list(found.layers) == names
    assert names[0] == "img"
    assert len(names) == 8
    assert not any("pool" in name for name in names)
    assert found.layers["img"].alone == 0.0
    assert found.layers["img"].only.noise == (0.0,)
    assert found.layers["img"].without.noise == found.in_integers.noise


def test_clipped_values_steps_and_channels() -> None:
    mixed = MixedNetwork(healthy())
    x = images(6, seed=4) * 2
    found = measure(mixed, [x])
    with torch.no_grad():
        y = mixed.network.float_values([x], keep=True)["stem"]
        q = mixed.network.integer_values([x], ["stem"])["stem"]
    sums, scale = found.layers["stem"], mixed.kinds["stem"].scale
    assert sums.clipped == int((torch.round(y / scale) > 127).sum()) > 0
    np.testing.assert_allclose(sums.channel_absmax, y.abs().amax((0, 2, 3)))
    assert (sums.low, sums.high) == (float(y.min()), float(y.max()))
    counts = np.bincount((q.values.flatten() + 128).long().numpy(), minlength=SLOTS)
    np.testing.assert_array_equal(sums.slots, counts)


def test_slots_of_int16_are_256_parts_of_its_range() -> None:
    x = images()
    mixed = MixedNetwork(calibrated(DepthwiseNet(), x, {"stem": "int16"}, input_scales={"img": 1 / 128}))
    sums = measure(mixed, [x], layers=["stem"]).layers["stem"]
    assert sums.slots.sum() == sums.elements
    assert sums.slots[:128].sum() == 0
    assert sums.slots[255] > 0


def test_batches_add_up_to_one() -> None:
    mixed, x = MixedNetwork(healthy()), images(6, seed=5)
    whole, parts = measure(mixed, [x]), measure(mixed, [x[:2]]) + measure(mixed, [x[2:]])
    assert parts.samples == whole.samples == 6
    for name, sums in whole.layers.items():
        other = parts.layers[name]
        for key in ("elements", "low", "high", "clipped"):
            assert getattr(other, key) == getattr(sums, key)
        for key in ("signal", "from_weights", "from_output", "alone", "accumulated"):
            assert getattr(other, key) == pytest.approx(getattr(sums, key), rel=1e-4, abs=1e-9)
        np.testing.assert_array_equal(other.slots, sums.slots)
        np.testing.assert_array_equal(other.channel_absmax, sums.channel_absmax)
        assert other.only.noise == pytest.approx(sums.only.noise, rel=1e-3, abs=1e-9)
        assert other.without.noise == pytest.approx(sums.without.noise, rel=1e-3, abs=1e-9)


def test_the_metrics_see_every_variant() -> None:
    mixed, x = MixedNetwork(healthy()), images(3)
    seen: list[Tensor] = []

    def score(outputs: Any) -> list[dict[str, Any]]:
        seen.append(outputs)
        return [{"sum": np.asarray(float(outputs.double().sum()))}]

    found = measure(mixed, [x], score, layers=["stem", "head"])
    assert len(seen) == 2 + 2 * 2
    assert len({float(value.double().sum()) for value in seen}) == 6
    assert found.layers["stem"].only.states[0]["sum"] == pytest.approx(float(seen[2].double().sum()))
    assert (found + found).layers["head"].without.states[0]["sum"] == pytest.approx(2 * float(seen[5].double().sum()))


def test_only_wanted_layers_and_a_stop_in_between() -> None:
    mixed, x = MixedNetwork(healthy()), images(2)
    found = measure(mixed, [x], layers=["head", "stem"])
    assert list(found.layers) == ["stem", "head"]
    whole = measure(mixed, [x])
    assert whole.layers["head"].without.noise == found.layers["head"].without.noise

    class Stop(Exception):
        pass

    def stop(name: str) -> None:
        if name == "depthwise":
            raise Stop

    with pytest.raises(Stop):
        measure(mixed, [x], measured=stop)


def test_a_constant_is_rounded_alone() -> None:
    class Offset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.register_buffer("offset", torch.rand(1, 4, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.offset

    mixed = MixedNetwork(calibrated(Offset(), images()))
    names = measured_layers(mixed)
    (constant,) = [name for name in names if mixed.network.layer(name).kind == "constant"]
    sums = measure(mixed, [images(3)]).layers[constant]
    assert 0 < sums.alone < 1e-3 * sums.signal
    assert sums.only.noise[0] > 0
