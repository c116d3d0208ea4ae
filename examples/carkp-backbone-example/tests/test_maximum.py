"""The operator means the same in float, in integers, in files and on every march."""

import numpy as np
import pytest
import torch
from carkp_backbone_example import bpu
from carkp_backbone_example.maximum import Maximum

from carkp_core.ir.operators import Term
from carkp_core.testing import check_operator


class Net(torch.nn.Module):
    """Two branches of other ranges, in all three spellings of a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.Conv2d(3, 6, 1)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        left, right = self.left(img), 3 * self.right(img)
        larger = torch.maximum(left, right)
        return larger.maximum(left.neg()) + torch.maximum(input=left, other=larger)


@pytest.mark.parametrize("march", ["bernoulli2", "bayes", "bayes-e", "nash-e", "nash-m"])
def test_the_operator_is_all_that_carkp_asks(march):
    torch.manual_seed(0)
    check_operator("maximum", Net(), {"img": torch.zeros(1, 3, 12, 20)}, marches=(march,))


def test_the_numbers():
    op = Maximum((Term(1 << 30, 30), Term(1 << 30, 31)), -128, 127)
    a, b = np.array([[10, -128, 5]], np.int8), np.array([[100, -7, 11]], np.int8)
    assert op.execute((a, b)).tolist() == [[50, -3, 6]]  # b is halved; -3.5 and 5.5 are rounded half up


def test_the_kernel_is_the_operator_for_every_pair():
    op = Maximum((Term(1500000000, 31), Term(1200000000, 33)), -100, 127)
    a, b = np.meshgrid(np.arange(-128, 128, dtype=np.int8), np.arange(-128, 128, dtype=np.int8))
    np.testing.assert_array_equal(bpu.kernel(op, (a, b)), op.execute((a, b)))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        Maximum((Term(1 << 30, 30),) * 2, -128, 127).infer_shape(((1, 2, 3, 3), (1, 2, 3, 4)))
