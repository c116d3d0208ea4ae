from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from carkp_carfusion.models.efficientnet import MODEL_TYPES, EfficientNet, FeatureInfo, efficientnet, scale_channels
from carkp_core.errors import ConfigError

#: Parameters of the published classifiers with 1000 classes.
PUBLISHED_PARAMS = {
    "b0": 5_288_548,
    "b1": 7_794_184,
    "b2": 9_109_994,
    "b3": 12_233_232,
    "b4": 19_341_616,
    "lite0": 4_652_008,
    "lite1": 5_416_680,
    "lite2": 6_092_072,
    "lite3": 8_197_096,
    "lite4": 13_006_568,
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("model_type", "params"), PUBLISHED_PARAMS.items())
def test_classifiers_have_the_published_number_of_parameters(model_type: str, params: int) -> None:
    lite = model_type.startswith("lite")
    with torch.device("meta"):
        model = efficientnet(
            model_type, 1000, activation="relu6" if lite else "swish", use_se_block=not lite, include_top=True
        )
    assert count(model) == params


def tutorial_trunk() -> EfficientNet:
    return efficientnet(
        model_type="b0", num_classes=1, bn_kwargs={}, activation="relu", use_se_block=False, include_top=False
    )


def test_b0_delivers_five_maps_as_feature_info_says() -> None:
    trunk = tutorial_trunk().eval()
    with torch.no_grad():
        features = trunk(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (1, info.channels, 64 // info.stride, 96 // info.stride) for info in trunk.feature_info
    ]
    assert [info.stride for info in trunk.feature_info] == [2, 4, 8, 16, 32]
    assert trunk.feature_info[4] == FeatureInfo(channels=320, stride=32)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_feature_info_holds_for_every_member(model_type: str) -> None:
    with torch.device("meta"):
        trunk = efficientnet(model_type)
        features = trunk(torch.zeros(1, 3, 64, 64))
    assert [(f.shape[1], 64 // f.shape[2]) for f in features] == [(i.channels, i.stride) for i in trunk.feature_info]


def test_tracing_gives_the_same_maps() -> None:
    trunk = tutorial_trunk().eval()
    traced = torch.fx.symbolic_trace(trunk)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for expected, seen in zip(trunk(image), traced(image), strict=True):
            assert torch.equal(expected, seen)


def test_no_module_is_used_twice_and_none_works_in_place() -> None:
    called: list[str] = []
    trunk = tutorial_trunk().eval()
    for name, module in trunk.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
            assert not getattr(module, "inplace", False)
    with torch.no_grad():
        trunk(torch.zeros(1, 3, 32, 32))
    assert len(called) == len(set(called))


def test_squeeze_excite_is_there_only_when_asked_for() -> None:
    def has_gate(model: nn.Module) -> bool:
        return any(isinstance(m, nn.Sigmoid) for m in model.modules())

    with torch.device("meta"):
        assert not has_gate(efficientnet(use_se_block=False))
        assert has_gate(efficientnet(use_se_block=True))


def test_bn_kwargs_reach_every_batch_norm() -> None:
    with torch.device("meta"):
        norms = [m for m in efficientnet(bn_kwargs={"eps": 1e-3}).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.eps for m in norms} == {1e-3}
    assert len(norms) == 48  # stem + 15 * 3 + the first block's 2


def test_activations_neither_vanish_nor_explode_at_the_start() -> None:
    torch.manual_seed(0)
    trunk = tutorial_trunk().train()
    with torch.no_grad():
        last = trunk(torch.randn(4, 3, 64, 64))[-1]
    assert 0.1 < float(last.std()) < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_type": "b00"}, "unknown model_type 'b00'; did you mean 'b0'"),
        ({"activation": "rellu"}, "unknown activation 'rellu'; did you mean 'relu'"),
        ({"bn_kwargs": {"epsilon": 1e-3}}, "bn_kwargs are not arguments of"),
    ],
)
def test_an_unknown_choice_names_the_known_ones(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        efficientnet(**arguments)
    assert caught.value.allowed


def test_widths_are_multiples_of_eight_and_never_lose_a_tenth() -> None:
    for channels in (16, 24, 40, 112, 320):
        for width in (0.3, 1.0, 1.1, 1.4, 2.0):
            scaled = scale_channels(channels, width)
            assert scaled % 8 == 0
            assert scaled >= 0.9 * channels * width or scaled == 8
