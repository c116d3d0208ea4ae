"""Transforms of one sample: each is a value, called as ``transform(sample, rng)``, that returns the changed sample.

A sample is a dict (see `carkp_carfusion.data.dataset`); a transform changes ``img`` and, with it, ``gt_ldmk`` [K, 2],
``gt_ldmk_attr`` [K] and ``transform_xy`` [2, 3], so that points and pixels move together. It never writes into the
arrays it was given, and takes all its randomness from ``rng``, so a sample can be replayed alone.
Sizes are (height, width); one number means a square. Images are RGB uint8 [H, W, 3] until `ToTensor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray

from carkp_carfusion.data import colour, geometry
from carkp_carfusion.heatmap_target import encode_heatmaps
from carkp_core.errors import ConfigError

Sample = dict[str, Any]


def _size(value: int | Sequence[int]) -> tuple[int, int]:
    """Read a (height, width)."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ConfigError("not an image size", seen=repr(value), allowed="(height, width) in whole pixels")
    return pair[0], pair[1]


def _probability(instance: object, attribute: Any, value: float) -> None:
    if not 0 <= value <= 1:
        name = f"{type(instance).__name__}.{attribute.name}"
        raise ConfigError("not a probability", where=name, seen=repr(value), allowed="0..1")


def _positive(instance: object, attribute: Any, value: float) -> None:
    if not value > 0:
        name = f"{type(instance).__name__}.{attribute.name}"
        raise ConfigError("not a positive number", where=name, seen=repr(value))


def _moved(sample: Sample, image: Any, affine: geometry.Affine) -> Sample:
    """The sample with another image, its points moved by ``affine``."""
    return {
        **sample,
        "img": image,
        "gt_ldmk": geometry.move_points(affine, sample["gt_ldmk"]),
        "transform_xy": geometry.compose(affine, sample["transform_xy"]),
    }


@frozen
class RandomFlip:
    """Mirror the image left to right with probability ``px``.

    x' = W - 1 - x, and the keypoints of a left/right pair change places together with their validity. The pairs come
    from the data set's skeleton, as the sample's ``flip_index``.
    """

    px: float = field(default=0.5, validator=_probability)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.px:
            return sample
        image = sample["img"]
        flipped = _moved(sample, cv2.flip(image, 1), geometry.mirror(image.shape[1]))
        order = np.asarray(self._order(sample))
        flipped["gt_ldmk"] = flipped["gt_ldmk"][order]
        flipped["gt_ldmk_attr"] = sample["gt_ldmk_attr"][order]
        return flipped

    def _order(self, sample: Sample) -> Sequence[int]:
        if "flip_index" not in sample:
            raise ConfigError(
                "the data set doesn't say which keypoints are left and right",
                where="RandomFlip",
                allowed="a sample with flip_index: for each keypoint, the index of its mirror image",
                remedy="derive the data set from carkp_carfusion.data.dataset.KeypointDataset",
            )
        order: Sequence[int] = sample["flip_index"]
        return order


@frozen
class Resize:
    """Resize to ``img_scale``, or with ``keep_ratio`` to the largest size of the same proportions inside it."""

    img_scale: tuple[int, int] = field(converter=_size)
    keep_ratio: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image = sample["img"]
        height, width = image.shape[:2]
        new_hw = geometry.fit_size((height, width), self.img_scale) if self.keep_ratio else self.img_scale
        affine = geometry.scaling(new_hw[1] / width, new_hw[0] / height)
        return _moved(sample, geometry.resize_image(image, new_hw), affine)


@frozen
class RandomPadLdmkData:
    """Pad the image to ``size``: at a random place, or with ``random=False`` on the right and at the bottom.

    The landmarks move with the image. The border has the value ``pad_value``.
    """

    size: tuple[int, int] = field(converter=_size)
    random: bool = True
    pad_value: int = 0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image = sample["img"]
        height, width = image.shape[:2]
        free_y, free_x = self.size[0] - height, self.size[1] - width
        if free_y < 0 or free_x < 0:
            raise ConfigError(
                "the image is larger than the size to pad it to",
                where="RandomPadLdmkData.size",
                seen=f"an image of {height}x{width}, size {self.size[0]}x{self.size[1]} (height x width)",
                remedy=f"put dict(type='Resize', img_scale={self.size}, keep_ratio=True) before it",
            )
        top, left = (int(rng.integers(free_y + 1)), int(rng.integers(free_x + 1))) if self.random else (0, 0)
        padded = cv2.copyMakeBorder(
            image, top, free_y - top, left, free_x - left, cv2.BORDER_CONSTANT, value=(self.pad_value,) * 3
        )
        return _moved(sample, padded, geometry.shift(left, top))


@frozen
class AddGaussianNoise:
    """With probability ``prob`` add Gaussian noise to every pixel and channel, rounded and clamped to 0..255.

    Each value takes one of 256 equally likely quantiles of N(mean, sigma): one random byte picks it from a table.
    Mean and variance are those of the rounded normal distribution within a hundredth, tails end at 2.9 sigma, and it
    costs a tenth of drawing normal floats.
    """

    prob: float = field(default=0.5, validator=_probability)
    mean: float = 0.0
    sigma: float = field(default=2.0, validator=_positive)
    _table: NDArray[np.int16] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        levels = np.rint(self.mean + self.sigma * _normal_quantiles(256)).astype(np.int16)
        object.__setattr__(self, "_table", levels[None])

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.prob:
            return sample
        image = sample["img"]
        picks = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape[0], -1)
        noisy = cv2.add(image.reshape(image.shape[0], -1), cv2.LUT(picks, self._table), dtype=cv2.CV_8U)
        return {**sample, "img": noisy.reshape(image.shape)}


def _normal_quantiles(count: int) -> NDArray[np.float64]:
    """The middles of ``count`` equally likely slices of the standard normal distribution, scaled to variance 1."""
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    quantiles: NDArray[np.float64] = torch.special.ndtri(middles).numpy()
    return quantiles / quantiles.std()


@frozen
class GenerateHeatmapTarget:
    """Draw the training target: ``gt_heatmap`` and ``gt_heatmap_weight``, float32 [K, h, w].

    A Gaussian of ``sigma`` cells about each valid keypoint at its exact place between the cells, up to 3 sigma; the
    weight is 1 on that blob, 0.1 elsewhere, and 0 all over for a keypoint that isn't valid.
    """

    num_ldmk: int
    feat_stride: float = field(default=4, validator=_positive)
    heatmap_shape: tuple[int, int] = field(default=(32, 32), converter=_size)
    sigma: float = field(default=1.0, validator=_positive)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        points_xy, valid = sample["gt_ldmk"], sample["gt_ldmk_attr"]
        if len(points_xy) != self.num_ldmk:
            raise ConfigError(
                "the data set has another number of keypoints",
                where="GenerateHeatmapTarget.num_ldmk",
                seen=f"{self.num_ldmk}; the data set's skeleton has {len(points_xy)}",
                remedy=f"set num_ldmk={len(points_xy)}, and the head's out_channels with it",
            )
        heatmap, weight = encode_heatmaps(points_xy, valid, self.heatmap_shape, self.feat_stride, self.sigma)
        return {**sample, "gt_heatmap": heatmap, "gt_heatmap_weight": weight}


@frozen
class ToTensor:
    """Turn the image into a float32 tensor [3, H, W] with values 0..255, RGB or (``to_yuv``) YUV 4:4:4.

    ``use_yuv_v2`` takes the vendor's 8-bit fixed-point matrix instead of the exactly rounded one; its range is the
    same, so the ``Normalize`` that follows is too. See `carkp_carfusion.data.colour`.
    """

    to_yuv: bool = False
    use_yuv_v2: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image = sample["img"]
        if self.to_yuv:
            image = colour.rgb_to_yuv444_v2(image) if self.use_yuv_v2 else colour.rgb_to_yuv444(image)
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))
        return {**sample, "img": torch.from_numpy(planes).float()}


@frozen
class Normalize:
    """(x - mean) / std in float32; ``mean`` and ``std`` are one number or one for each channel."""

    mean: float | tuple[float, ...] = field(default=128.0)
    std: float | tuple[float, ...] = field(default=128.0)

    def __attrs_post_init__(self) -> None:
        if not (np.asarray(self.std) > 0).all():
            raise ConfigError("std must be positive", where="Normalize.std", seen=repr(self.std))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image = sample["img"]
        if not isinstance(image, torch.Tensor):
            raise ConfigError(
                "Normalize needs a tensor", seen=type(image).__name__, remedy="put dict(type='ToTensor') before it"
            )
        return {**sample, "img": (image - _channels(self.mean)) / _channels(self.std)}


def _channels(value: float | tuple[float, ...]) -> torch.Tensor | float:
    return float(value) if isinstance(value, (int, float)) else torch.tensor(value, dtype=torch.float32)[:, None, None]
