from __future__ import annotations

from typing import Any

import pytest
import torch
from npu_toys import toy_plugins
from torch import Tensor, nn

from carkp_core.testing import CheckFailed, check_backbone

torch.set_num_threads(1)


class Net(nn.Module):
    """Two feature maps; each test breaks one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)

    def forward(self, img: Tensor) -> Any:
        first = torch.relu(self.a(img))
        return [first, self.b(first)]


class Noisy(Net):
    def forward(self, img: Tensor) -> Any:
        return [x + torch.rand_like(x) for x in super().forward(img)]


class AcrossTheBatch(Net):
    def forward(self, img: Tensor) -> Any:
        return super().forward(img - img.mean(0, keepdim=True))


class Named(Net):
    def forward(self, img: Tensor) -> Any:
        return dict(enumerate(super().forward(img)))


class Misinformed(Net):
    def __init__(self) -> None:
        super().__init__()
        feature = type("Feature", (), {"channels": 4, "stride": 2})
        self.feature_info = (feature, feature)


class Idle(Net):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Conv2d(1, 1, 1)


class Attention(Net):
    def forward(self, img: Tensor) -> Any:
        return [torch.softmax(x, dim=1) for x in super().forward(img)]


class Misfit(Net):
    def forward(self, img: Tensor) -> Any:
        return [torch.cat(super().forward(img), dim=1)]


class Squashed(Net):
    def forward(self, img: Tensor) -> Any:
        return [torch.sigmoid(x) for x in super().forward(img)]


def test_a_sound_backbone_gives_its_integer_model():
    graph = check_backbone(Net(), (16, 16), marches=("toy-1",), plugins=toy_plugins())
    assert [node.type.shape[1] for node in graph.nodes] == [4, 8]


@pytest.mark.parametrize(
    ("broken", "what", "remedy"),
    [
        (Noisy, "differs between two calls", "depend on self.training"),
        (AcrossTheBatch, "depends on the other images", "running statistics"),
        (Named, "forward returns dict", "list or tuple of tensors"),
        (
            Misinformed,
            "feature_info says 4 channels at stride 2 for map 1; it has 8 at stride 4",
            "correct feature_info",
        ),
        (Idle, "no gradient reaches spare.weight, spare.bias", "requires_grad_"),
        (Misfit, f"(at {__file__}:", "run it on one image"),
        (Attention, "softmax at", "register an operator"),
        (Squashed, "toy-1 refuses sigmoid", "leave it out"),
    ],
)
def test_each_finding_says_what_why_and_what_to_do(broken, what, remedy):
    with pytest.raises(CheckFailed) as caught:
        check_backbone(broken(), (16, 16), marches=("toy-1",), plugins=toy_plugins())
    assert what in str(caught.value)
    assert remedy in str(caught.value)
    assert all(finding.why for finding in caught.value.findings)


def test_the_line_of_an_unknown_operator_is_named():
    with pytest.raises(CheckFailed, match=r"test_backbone\.py:\d+"):
        check_backbone(Attention(), (16, 16), plugins=toy_plugins())


def test_a_backbone_that_raises_is_a_finding():
    with pytest.raises(CheckFailed, match="forward raises RuntimeError"):
        check_backbone(nn.Conv2d(4, 4, 1), plugins=toy_plugins())
