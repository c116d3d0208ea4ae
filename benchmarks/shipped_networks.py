"""The networks of the shipped configs and pictures to feed them, for the measurements beside this file.

Legend: ``N`` images, ``H W`` the network's input size.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn

from carkp_carfusion.data.colour import rgb_to_yuv444
from carkp_carfusion.data.synth.generate import SynthSpec, frame_ids, render_frame
from carkp_carfusion.models.pretrained import efficientnet_lite0
from carkp_core.context import Context
from carkp_core.session import open_session

#: Windows taken from each rendered frame.
WINDOWS = 20


@frozen(eq=False)
class ShippedNetwork:
    """The deployed network of a shipped config, its context and an example of its input."""

    config: str
    network: nn.Module
    context: Context
    inputs: dict[str, Tensor]
    #: The trunk's weights are ImageNet's.
    pretrained: bool

    @property
    def size_hw(self) -> tuple[int, int]:
        """H and W."""
        height, width = self.inputs["img"].shape[-2:]
        return int(height), int(width)


def shipped_network(config: str) -> ShippedNetwork:
    """A config's network with the ImageNet trunk where it is installed and fits, else with random weights."""
    session = open_session(config)
    torch.manual_seed(0)
    network, inputs = session.deploy()
    pretrained = efficientnet_lite0(network) is not None
    return ShippedNetwork(config, network.eval(), session.context, inputs, pretrained)


def car_images(count: int, size_hw: tuple[int, int], seed: int = 0) -> Tensor:
    """Windows of generated frames as the network sees them: YUV, (pixel - 128) / 128, float32 [N, 3, H, W]."""
    spec = SynthSpec(frames_train=-(-count // WINDOWS), frames_test=0, size=(640, 360), seed=seed)
    rng = np.random.default_rng(seed)
    images = []
    for frame in frame_ids(spec):
        picture = render_frame(spec, frame)[0][:, :, ::-1]
        for _ in range(WINDOWS):
            side = int(rng.integers(80, 320))
            top, left = (int(rng.integers(0, limit - side)) for limit in picture.shape[:2])
            window = np.ascontiguousarray(picture[top : top + side, left : left + side])
            yuv = rgb_to_yuv444(cv2.resize(window, size_hw[::-1], interpolation=cv2.INTER_AREA))
            images.append(yuv.transpose(2, 0, 1))
    return (torch.from_numpy(np.stack(images[:count])).float() - 128.0) / 128.0
