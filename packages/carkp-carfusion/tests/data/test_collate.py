from __future__ import annotations

import numpy as np
import pytest
import torch

from carkp_carfusion.data.collate import collate_2d
from carkp_core.errors import DataError


def test_tensors_and_arrays_are_stacked_and_the_rest_listed():
    samples = [
        {
            "img": torch.full((3, 4, 5), float(n)),
            "gt_ldmk": np.full((2, 2), n, np.float32),
            "img_name": str(n),
            "index": n,
        }
        for n in range(3)
    ]
    batch = collate_2d(samples)
    assert batch["img"].shape == (3, 3, 4, 5)
    assert batch["gt_ldmk"].dtype == torch.float32
    assert batch["gt_ldmk"][2, 1, 1] == 2
    assert batch["img_name"] == ["0", "1", "2"]
    assert batch["index"] == [0, 1, 2]


def test_images_of_different_sizes_are_an_error_with_a_remedy():
    with pytest.raises(DataError, match="shape of 'img'") as caught:
        collate_2d([{"img": np.zeros((4, 5, 3))}, {"img": np.zeros((5, 5, 3))}])
    assert "RandomPadLdmkData" in str(caught.value)
