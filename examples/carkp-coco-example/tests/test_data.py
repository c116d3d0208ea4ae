"""Reading, cropping, mirroring, and what is said of files that cannot be used."""

import json

import numpy as np
import pytest
from carkp_coco_example.data import CocoKeypoints

from carkp_carfusion.data.transforms import RandomFlip
from carkp_core.errors import DataError
from carkp_core.testing import check_dataset

KEYS = ("img", "gt_ldmk", "gt_ldmk_attr", "transform_xy", "img_name", "img_height", "img_width", "index")


def data(root, **more):
    annotations = root / "annotations" / "person_keypoints_val2017.json"
    return CocoKeypoints(annotations, root / "val2017", "figure", **more)


def test_the_data_set_is_all_that_carkp_asks(coco_root):
    check_dataset(data(coco_root), keys=KEYS)
    check_dataset(data(coco_root, transforms=[RandomFlip(px=0.5)]), keys=KEYS)


def test_the_skeleton_comes_from_the_file(coco_root):
    skeleton = data(coco_root).skeleton
    assert (len(skeleton), skeleton.flip_index) == (5, (0, 2, 1, 4, 3))
    assert skeleton.edges == ((0, 1), (0, 2), (1, 3), (2, 4))


def test_crowds_and_objects_without_points_are_left_out(coco_root):
    assert len(data(coco_root)) == 6


def test_points_lie_on_what_was_drawn(coco_root):
    for sample in data(coco_root):
        for (x, y), valid in zip(sample["gt_ldmk"], sample["gt_ldmk_attr"], strict=True):
            assert not valid or sample["img"][int(y), int(x)].min() == 255


def test_a_mirrored_sample_exchanges_left_and_right(coco_root):
    plain, mirrored = data(coco_root)[0], data(coco_root, transforms=[RandomFlip(px=1.0)])[0]
    assert plain["gt_ldmk_attr"].tolist() == [1, 1, 1, 1, 0]
    assert mirrored["gt_ldmk_attr"].tolist() == [1, 1, 1, 0, 1]
    np.testing.assert_allclose(mirrored["gt_ldmk"][1, 0], plain["img_width"] - 1 - plain["gt_ldmk"][2, 0])


def test_a_margin_widens_the_crop(coco_root):
    tight, wide = (data(coco_root, margin=margin)[0] for margin in (0.0, 0.2))
    assert (tight["img_width"], tight["img_height"]) == (44, 62)
    assert wide["img_width"] > 44


def test_another_category_is_met_with_those_there(coco_root):
    with pytest.raises(DataError, match="no such category") as caught:
        CocoKeypoints(coco_root / "annotations" / "person_keypoints_val2017.json", coco_root, "person")
    assert caught.value.allowed == "figure"


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"categories": [{"name": "person"}]})])
def test_another_file_is_refused_by_name(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match="COCO's keypoint format") as caught:
        CocoKeypoints(tmp_path / "x.json", tmp_path)
    assert caught.value.where == str(tmp_path / "x.json")


def test_a_missing_image_is_named(coco_root):
    annotations = coco_root / "annotations" / "person_keypoints_val2017.json"
    with pytest.raises(DataError) as caught:
        CocoKeypoints(annotations, coco_root / "nowhere", "figure")[0]
    assert "nowhere/0.png" in str(caught.value)
