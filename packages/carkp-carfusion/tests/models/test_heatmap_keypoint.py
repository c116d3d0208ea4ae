from __future__ import annotations

import pytest
import torch

from carkp_carfusion.models.deconv_decoder import DeconvDecoder
from carkp_carfusion.models.efficientnet import efficientnet
from carkp_carfusion.models.heatmap_codec import HeatmapCodec, HeatmapDecoder
from carkp_carfusion.models.heatmap_keypoint import HeatmapKeypointModel
from carkp_carfusion.models.loss import MSELoss
from carkp_core.errors import ConfigError
from carkp_core.ops_count import count_ops


def build(loss: bool = True, post_process: bool = True) -> HeatmapKeypointModel:
    torch.manual_seed(0)
    return HeatmapKeypointModel(
        backbone=efficientnet("b0", num_classes=1, bn_kwargs={}, activation="relu"),
        decode_head=DeconvDecoder(320, 5, 4, 3, [16, 16, 16], [4, 4, 4], 3),
        loss=MSELoss(reduction="mean") if loss else None,
        post_process=HeatmapDecoder(scale=4, mode="averaged") if post_process else None,
    )


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = 4 + 56 * torch.rand(2, 5, 2, generator=generator).numpy()
    codec = HeatmapCodec(heatmap_hw=(16, 16))
    targets = [codec.encode(p, [1, 1, 0, 1, 1]) for p in points]
    return {
        "img": torch.randn(2, 3, 64, 64, generator=generator),
        "gt_heatmap": torch.stack([torch.from_numpy(h) for h, _ in targets]),
        "gt_heatmap_weight": torch.stack([torch.from_numpy(w) for _, w in targets]),
    }


def test_the_whole_network_has_the_documented_cost() -> None:
    model = HeatmapKeypointModel(efficientnet("b0"), DeconvDecoder(320, 12))
    report = count_ops(model.network, {"img": torch.zeros(1, 3, 128, 128)})
    assert report.macs == 227_331_584
    assert report.params == 4_153_100
    assert report.modules[-1].path == "decode_head.final"
    assert report.modules[-1].output_shape == (1, 12, 32, 32)


def test_training_answers_heatmaps_and_loss(batch: dict[str, torch.Tensor]) -> None:
    model = build().train()
    heatmaps, loss = model(batch)
    assert heatmaps.shape == (2, 5, 16, 16)
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_evaluation_answers_points_or_heatmaps(batch: dict[str, torch.Tensor]) -> None:
    model = build().eval()
    with torch.no_grad():
        points = model(batch)
        heatmaps = model.network(batch["img"])
        assert torch.equal(points, HeatmapDecoder(4)(heatmaps))
        assert torch.equal(model(batch["img"]), points)
        model.post_process = None
        assert torch.equal(model({"img": batch["img"]}), heatmaps)


def test_it_learns_a_batch_by_heart(batch: dict[str, torch.Tensor]) -> None:
    model = build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        _, loss = model(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_a_training_batch_without_target_is_named(batch: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ConfigError, match="has no target") as caught:
        build().train()({"img": batch["img"]})
    assert "GenerateHeatmapTarget" in str(caught.value)


def test_the_network_alone_is_traceable(batch: dict[str, torch.Tensor]) -> None:
    network = build().eval().network
    traced = torch.fx.symbolic_trace(network)
    with torch.no_grad():
        assert torch.equal(traced(batch["img"]), network(batch["img"]))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (DeconvDecoder(320, 12, input_index=5), "does not have"),
        (DeconvDecoder(192, 12, input_index=4), "expects other channels"),
    ],
)
def test_a_head_that_does_not_fit_the_trunk_is_refused(head: DeconvDecoder, message: str) -> None:
    with torch.device("meta"):
        trunk = efficientnet("b0")
    with pytest.raises(ConfigError, match=message) as caught:
        HeatmapKeypointModel(trunk, head)
    assert "4: 320 channels at stride 32" in str(caught.value)
