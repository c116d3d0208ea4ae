from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.data import geometry
from carkp_carfusion.data.colour import rgb_to_yuv444, rgb_to_yuv444_v2
from carkp_carfusion.data.transforms import (
    AddGaussianNoise,
    GenerateHeatmapTarget,
    Normalize,
    RandomFlip,
    RandomPadLdmkData,
    Resize,
    ToTensor,
)
from carkp_carfusion.heatmap_target import encode_heatmaps
from carkp_carfusion.skeleton import CARFUSION
from carkp_core.errors import ConfigError

SEEDS = st.integers(0, 2**32)
SIDES = st.integers(24, 140)


def make_sample(height: int, width: int, seed: int = 0) -> dict[str, Any]:
    """A sample whose points lie on whole pixels, each pixel's red channel naming its point."""
    rng = np.random.default_rng(seed)
    places = rng.choice(height * width, 12, replace=False)
    points = np.stack([places % width, places // width], 1).astype(np.float32)
    image = np.full((height, width, 3), 3, np.uint8)
    for index, (x, y) in enumerate(points.astype(int)):
        image[y, x, 0] = 100 + index
    return {
        "img": image,
        "gt_ldmk": points,
        "gt_ldmk_attr": (rng.random(12) < 0.7).astype(np.float32),
        "transform_xy": geometry.identity(),
        "flip_index": CARFUSION.flip_index,
        "img_name": "x",
        "index": 0,
    }


def frozen_copy(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample with arrays that refuse to be written to."""
    copy = {}
    for key, value in sample.items():
        copy[key] = value
        if isinstance(value, np.ndarray):
            copy[key] = value.copy()
            copy[key].flags.writeable = False
    return copy


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def reds(sample: dict[str, Any]) -> list[int]:
    """The red value at each of the sample's points."""
    return [int(sample["img"][y, x, 0]) for x, y in np.rint(sample["gt_ldmk"]).astype(int)]


class TestRandomFlip:
    flip = RandomFlip(px=1.0)

    @settings(max_examples=30, deadline=None)
    @given(SIDES, SIDES, SEEDS)
    def test_twice_is_the_identity(self, height: int, width: int, seed: int):
        sample = make_sample(height, width, seed)
        rng = np.random.default_rng(0)
        assert equal(self.flip(self.flip(sample, rng), rng), sample)

    @settings(max_examples=30, deadline=None)
    @given(SIDES, SIDES, SEEDS)
    def test_points_pixels_and_validity_move_and_swap_together(self, height: int, width: int, seed: int):
        sample = make_sample(height, width, seed)
        flipped = self.flip(frozen_copy(sample), np.random.default_rng(0))
        order = list(CARFUSION.flip_index)
        assert reds(flipped) == [100 + index for index in order]
        assert (flipped["gt_ldmk_attr"] == sample["gt_ldmk_attr"][order]).all()
        assert (flipped["gt_ldmk"][:, 0] == width - 1 - sample["gt_ldmk"][order, 0]).all()
        assert (flipped["gt_ldmk"][:, 1] == sample["gt_ldmk"][order, 1]).all()

    def test_the_probability_is_kept(self):
        sample, rng = make_sample(30, 30), np.random.default_rng(1)
        share = np.mean([RandomFlip(px=0.3)(sample, rng) is not sample for _ in range(2000)])
        assert share == pytest.approx(0.3, abs=0.05)
        assert RandomFlip(px=0.0)(sample, rng) is sample

    def test_a_data_set_without_pairs_is_told_what_to_give(self):
        sample = make_sample(30, 30)
        del sample["flip_index"]
        with pytest.raises(ConfigError, match="left and right"):
            self.flip(sample, np.random.default_rng(0))

    def test_a_share_that_is_no_probability_is_refused(self):
        with pytest.raises(ConfigError, match=r"RandomFlip\.px: not a probability"):
            RandomFlip(px=1.5)


class TestResize:
    @settings(max_examples=40, deadline=None)
    @given(SIDES, SIDES, st.integers(8, 160), st.integers(8, 160), st.booleans())
    def test_points_follow_the_true_scale_of_each_axis(self, h: int, w: int, new_h: int, new_w: int, keep: bool):
        sample = make_sample(h, w)
        resized = Resize((new_h, new_w), keep_ratio=keep)(frozen_copy(sample), np.random.default_rng(0))
        out_h, out_w = resized["img"].shape[:2]
        assert (out_h, out_w) == ((new_h, new_w) if not keep else geometry.fit_size((h, w), (new_h, new_w)))
        expected = (sample["gt_ldmk"] + 0.5) * (out_w / w, out_h / h) - 0.5
        assert np.allclose(resized["gt_ldmk"], expected, atol=1e-4)
        assert resized["gt_ldmk"].dtype == np.float32
        assert (resized["gt_ldmk_attr"] == sample["gt_ldmk_attr"]).all()

    def test_a_dot_is_found_where_its_point_went(self):
        sample = make_sample(60, 90)
        sample["img"] = np.zeros((60, 90, 3), np.uint8)
        x, y = sample["gt_ldmk"][0].astype(int)
        sample["img"][y, x] = 255
        enlarged = Resize((240, 360))(sample, np.random.default_rng(0))
        weight = enlarged["img"][..., 0].astype(float)
        rows, columns = np.mgrid[:240, :360]
        centre = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        assert centre == pytest.approx(enlarged["gt_ldmk"][0].tolist(), abs=0.05)

    def test_one_number_means_a_square(self):
        assert Resize(96).img_scale == (96, 96)
        with pytest.raises(ConfigError, match="not an image size"):
            Resize((0, 5))


class TestRandomPad:
    @settings(max_examples=40, deadline=None)
    @given(SIDES, SIDES, SEEDS)
    def test_landmarks_move_with_the_image(self, height: int, width: int, seed: int):
        sample = make_sample(height, width, seed)
        padded = RandomPadLdmkData((150, 145))(frozen_copy(sample), np.random.default_rng(seed))
        assert padded["img"].shape == (150, 145, 3)
        assert reds(padded) == [100 + index for index in range(12)]
        shift = padded["gt_ldmk"] - sample["gt_ldmk"]
        assert (shift == shift[0]).all()
        assert (padded["gt_ldmk_attr"] == sample["gt_ldmk_attr"]).all()

    def test_every_place_is_reached(self):
        sample, rng = make_sample(30, 40), np.random.default_rng(0)
        pad = RandomPadLdmkData((32, 41))
        places = {tuple(pad(sample, rng)["transform_xy"][:, 2]) for _ in range(200)}
        assert places == {(x, y) for x in (0, 1) for y in (0, 1, 2)}

    def test_without_chance_the_border_is_right_and_below(self):
        sample = make_sample(30, 40)
        padded = RandomPadLdmkData((50, 60), random=False, pad_value=9)(sample, np.random.default_rng(0))
        assert (padded["img"][:30, :40] == sample["img"]).all()
        assert (padded["img"][30:] == 9).all()
        assert (padded["img"][:, 40:] == 9).all()
        assert (padded["gt_ldmk"] == sample["gt_ldmk"]).all()

    def test_an_image_that_is_too_large_is_an_error_with_a_remedy(self):
        with pytest.raises(ConfigError, match="larger than the size") as caught:
            RandomPadLdmkData((20, 60))(make_sample(30, 40), np.random.default_rng(0))
        assert "Resize" in str(caught.value)


class TestAddGaussianNoise:
    @pytest.mark.parametrize(("mean", "sigma"), [(0, 2), (0, 0.7), (3.0, 5), (-2.5, 20)])
    def test_mean_and_spread(self, mean: float, sigma: float):
        sample = {"img": np.full((200, 200, 3), 128, np.uint8)}
        noisy = AddGaussianNoise(1.0, mean, sigma)(sample, np.random.default_rng(0))["img"].astype(float) - 128
        assert noisy.mean() == pytest.approx(mean, abs=0.02 + 0.01 * sigma)
        assert noisy.std() == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.02)

    def test_values_are_clamped(self):
        image = np.zeros((50, 50, 3), np.uint8)
        image[25:] = 255
        noisy = AddGaussianNoise(1.0, 0, 30)({"img": image}, np.random.default_rng(0))["img"]
        assert noisy[:25].min() == 0
        assert noisy[:25].max() < 120
        assert noisy[25:].max() == 255
        assert noisy[25:].min() > 135

    def test_pixels_and_channels_are_independent(self):
        noise = AddGaussianNoise(1.0, 0, 4)({"img": np.full((128, 128, 3), 128, np.uint8)}, np.random.default_rng(3))
        values = noise["img"].astype(float) - 128
        flat = values.reshape(-1, 3)
        assert np.abs(np.corrcoef(flat.T) - np.eye(3)).max() < 0.03
        assert abs(np.corrcoef(values[:, 1:, 0].ravel(), values[:, :-1, 0].ravel())[0, 1]) < 0.03

    def test_the_same_generator_gives_the_same_noise_and_the_argument_stays(self):
        sample = frozen_copy(make_sample(30, 40))
        noise = AddGaussianNoise(1.0, 0, 2)
        first, second = (noise(sample, np.random.default_rng(4))["img"] for _ in range(2))
        assert (first == second).all()
        assert (first != sample["img"]).any()

    def test_the_probability_is_kept(self):
        sample, rng = make_sample(24, 24), np.random.default_rng(1)
        share = np.mean([AddGaussianNoise(0.2, 0, 2)(sample, rng) is not sample for _ in range(2000)])
        assert share == pytest.approx(0.2, abs=0.04)

    def test_no_spread_is_refused(self):
        with pytest.raises(ConfigError, match=r"AddGaussianNoise\.sigma: not a positive number"):
            AddGaussianNoise(0.5, 0, 0)


class TestGenerateHeatmapTarget:
    def test_the_target_is_the_codecs(self):
        sample = make_sample(64, 64)
        made = GenerateHeatmapTarget(12, feat_stride=4, heatmap_shape=(16, 16), sigma=1.0)(
            sample, np.random.default_rng(0)
        )
        heatmap, weight = encode_heatmaps(sample["gt_ldmk"], sample["gt_ldmk_attr"], (16, 16), 4, 1.0)
        assert (made["gt_heatmap"] == heatmap).all()
        assert (made["gt_heatmap_weight"] == weight).all()
        invalid = sample["gt_ldmk_attr"] == 0
        assert (made["gt_heatmap_weight"][invalid] == 0).all()

    def test_another_number_of_points_is_an_error(self):
        with pytest.raises(ConfigError, match="another number of keypoints") as caught:
            GenerateHeatmapTarget(14)(make_sample(64, 64), np.random.default_rng(0))
        assert "num_ldmk=12" in str(caught.value)


class TestToTensorAndNormalize:
    image = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)

    @pytest.mark.parametrize(
        ("transform", "expected"),
        [
            (ToTensor(), image),
            (ToTensor(to_yuv=True), rgb_to_yuv444(image)),
            (ToTensor(to_yuv=True, use_yuv_v2=True), rgb_to_yuv444_v2(image)),
        ],
    )
    def test_the_tensor_is_float_chw_in_0_to_255(self, transform: ToTensor, expected: np.ndarray):
        tensor = transform({"img": self.image}, np.random.default_rng(0))["img"]
        assert tensor.dtype == torch.float32
        assert (tensor.numpy() == expected.transpose(2, 0, 1)).all()

    def test_normalizing_by_128_is_exact(self):
        values = torch.arange(256, dtype=torch.float32).reshape(1, 16, 16)
        normal = Normalize(128.0, 128.0)({"img": values}, np.random.default_rng(0))["img"]
        assert normal.dtype == torch.float32
        assert (normal.double() * 128 + 128 == values.double()).all()

    def test_channels_may_differ(self):
        normal = Normalize([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])(
            {"img": torch.full((3, 2, 2), 11.0)}, np.random.default_rng(0)
        )
        assert normal["img"][:, 0, 0].tolist() == [10, 4.5, 2]

    def test_misuse_is_named(self):
        with pytest.raises(ConfigError, match="Normalize needs a tensor"):
            Normalize()({"img": self.image}, np.random.default_rng(0))
        with pytest.raises(ConfigError, match="std must be positive"):
            Normalize(0, 0)


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES, SEEDS)
def test_the_affine_map_is_that_of_the_whole_chain(height: int, width: int, seed: int):
    sample = make_sample(height, width, seed)
    original = sample["gt_ldmk"]
    rng = np.random.default_rng(seed)
    flipped = False
    for transform in (RandomFlip(0.5), Resize((128, 128)), RandomPadLdmkData((128, 128))):
        before = sample
        sample = transform(sample, rng)
        flipped |= isinstance(transform, RandomFlip) and sample is not before
    points = original[list(CARFUSION.flip_index)] if flipped else original
    assert np.allclose(
        geometry.move_points(sample["transform_xy"], points.astype(np.float64)), sample["gt_ldmk"], atol=1e-3
    )
    back = geometry.move_points(geometry.invert(sample["transform_xy"]), sample["gt_ldmk"].astype(np.float64))
    assert np.allclose(back, points, atol=1e-3)
