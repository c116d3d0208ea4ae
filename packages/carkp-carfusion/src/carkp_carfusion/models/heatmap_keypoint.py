"""The task model: trunk, head, loss and post-process behind one ``forward``.

Shapes: ``N`` batch, ``K`` keypoints, ``H W`` the image, ``h w`` a heatmap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from carkp_core.errors import ConfigError


class KeypointNetwork(nn.Module):
    """Trunk and head: image ``[N, 3, H, W]`` to heatmaps ``[N, K, h, w]``. This is what is quantized and deployed."""

    def __init__(self, backbone: nn.Module, decode_head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head

    def forward(self, img: Tensor) -> Tensor:
        return self.decode_head(self.backbone(img))  # type: ignore[no-any-return]


class HeatmapKeypointModel(nn.Module):
    """A keypoint model that learns heatmaps and answers with points.

    Parameters
    ----------
    backbone:
        Image to a sequence of feature maps. Where it tells its channels (``feature_info``), the head's are checked.
    decode_head:
        Feature maps to heatmaps.
    loss:
        Called with heatmaps, target and weight, each ``[N, K, h, w]``.
    post_process:
        Heatmaps to points ``[N, K, 3]``.

    Raises
    ------
    ConfigError
        The head takes a feature map that the trunk does not have, or one with other channels.
    """

    #: Evaluation changes nothing in the model, so that several batches may be in it at a time.
    reentrant = True

    def __init__(
        self,
        backbone: nn.Module,
        decode_head: nn.Module,
        loss: nn.Module | None = None,
        post_process: nn.Module | None = None,
    ) -> None:
        super().__init__()
        _check_fit(backbone, decode_head)
        self.network = KeypointNetwork(backbone, decode_head)
        self.loss = loss
        self.post_process = post_process

    def forward(self, data: Mapping[str, Any] | Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Run a batch, or images alone.

        Returns
        -------
        ``(heatmaps, loss)`` in training, if there is a loss and ``data`` is a batch (keys ``img``, ``gt_heatmap``,
        ``gt_heatmap_weight``). Points ``[N, K, 3]`` (x, y in pixels of the input, confidence) in evaluation, if there
        is a post-process. Heatmaps otherwise.
        """
        heatmaps: Tensor = self.network(data["img"] if isinstance(data, Mapping) else data)
        if self.training:
            if self.loss is None or not isinstance(data, Mapping):
                return heatmaps
            return heatmaps, self.loss(heatmaps, *_target(data))
        return heatmaps if self.post_process is None else self.post_process(heatmaps)


def _target(data: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    if "gt_heatmap" not in data:
        raise ConfigError(
            "HeatmapKeypointModel: a training batch has no target",
            seen=f"keys {', '.join(sorted(data))}",
            allowed="gt_heatmap and gt_heatmap_weight",
            remedy="add dict(type='GenerateHeatmapTarget', ...) to the training transforms",
        )
    return data["gt_heatmap"], data.get("gt_heatmap_weight")


def _check_fit(backbone: nn.Module, decode_head: nn.Module) -> None:
    info = getattr(backbone, "feature_info", None)
    index = getattr(decode_head, "input_index", None)
    wanted = getattr(decode_head, "in_channels", None)
    if info is None or index is None or wanted is None:
        return
    offered = ", ".join(
        f"{i}: {feature.channels} channels at stride {feature.stride}" for i, feature in enumerate(info)
    )
    if not -len(info) <= index < len(info):
        raise ConfigError(
            "HeatmapKeypointModel: decode_head takes a feature map that the backbone does not have",
            seen=f"input_index={index}",
            allowed=offered,
        )
    if info[index].channels != wanted:
        raise ConfigError(
            "HeatmapKeypointModel: decode_head expects other channels than the backbone delivers",
            seen=f"in_channels={wanted} for feature map {index}, which has {info[index].channels}",
            allowed=offered,
            remedy=f"set decode_head.in_channels to {info[index].channels}, or choose another input_index",
        )
