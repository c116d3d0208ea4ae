"""Stick figures in COCO's format: five points, two mirror pairs."""

import json

import cv2
import numpy as np
import pytest

NAMES = ["head", "left_hand", "right_hand", "left_foot", "right_foot"]
CATEGORY = {"id": 7, "name": "figure", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3], [2, 4], [3, 5]]}
PLACES = np.array([[20, 6], [36, 26], [4, 26], [30, 54], [10, 54]])


@pytest.fixture(scope="session")
def coco_root(tmp_path_factory):
    """``annotations`` and two folders of images; each image holds two figures."""
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    for split, count in (("train", 8), ("val", 3)):
        (root / f"{split}2017").mkdir()
        images, annotations = [], []
        for index in range(count):
            rng = np.random.default_rng((len(split), index))
            picture = rng.integers(0, 80, (80, 120, 3), dtype=np.uint8)
            images.append({"id": index, "file_name": f"{index}.png"})
            for left in (5, 65):
                points = PLACES + np.array([left, 10]) + rng.integers(-3, 4, PLACES.shape)
                for x, y in points:
                    cv2.circle(picture, (int(x), int(y)), 3, (255, 255, 255), -1)
                rows = np.concatenate([points + 0.5, rng.integers(1, 3, (5, 1))], axis=1)
                rows[4] = 0  # the right foot is never labelled
                annotations.append({
                    "id": len(annotations), "image_id": index, "category_id": 7, "num_keypoints": 4, "iscrowd": 0,
                    "bbox": [left, 8, 44, 62], "keypoints": rows.reshape(-1).tolist(),
                })  # fmt: skip
            cv2.imwrite(str(root / f"{split}2017" / f"{index}.png"), picture)
        annotations.append({**annotations[0], "id": -1, "iscrowd": 1})
        annotations.append({**annotations[0], "id": -2, "num_keypoints": 0})
        content = {"categories": [CATEGORY], "images": images, "annotations": annotations}
        (root / "annotations" / f"person_keypoints_{split}2017.json").write_text(json.dumps(content))
    return root
