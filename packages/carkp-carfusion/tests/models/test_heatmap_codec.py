from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.models.heatmap_codec import MODES, HeatmapCodec, HeatmapDecoder
from carkp_core.errors import ConfigError

STRIDE = 4
SIZE = 32 * STRIDE

#: Greatest error along an axis in input pixels, of a clean map with sigma 1: inside, and within 6 pixels of a border.
#: A cell is 4 pixels, so half a cell, the best a plain argmax can promise, is 2.
BOUNDS_PX = {"averaged": (0.2, 2.001), "diff_sign": (1.001, 2.001), "dark": (0.02, 0.2)}


def random_points(count: int, low: float, high: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, (count, 2))


def encode(codec: HeatmapCodec, xy: np.ndarray) -> torch.Tensor:
    heatmap, _ = codec.encode(xy, np.ones(len(xy)))
    return torch.from_numpy(heatmap)[None]


@pytest.mark.parametrize("mode", MODES)
def test_decoding_what_was_encoded_keeps_the_bound_inside(mode: str) -> None:
    codec = HeatmapCodec((32, 32), STRIDE, mode=mode)
    xy = random_points(2000, 4 * STRIDE, SIZE - 1 - 4 * STRIDE)
    error = np.abs(codec.decoder()(encode(codec, xy))[0, :, :2].numpy() - xy)
    assert error.max() <= BOUNDS_PX[mode][0]


@pytest.mark.parametrize("mode", MODES)
def test_decoding_what_was_encoded_keeps_the_bound_at_borders_and_corners(mode: str) -> None:
    codec = HeatmapCodec((32, 32), STRIDE, mode=mode)
    along, near = np.linspace(0, SIZE - 1, 150), np.linspace(0, 6, 13)
    near = np.concatenate([near, SIZE - 1 - near])
    strip = np.stack(np.meshgrid(near, along), axis=-1).reshape(-1, 2)
    for xy in (strip, strip[:, ::-1]):
        error = np.abs(codec.decoder()(encode(codec, xy))[0, :, :2].numpy() - xy)
        assert error.max() <= BOUNDS_PX[mode][1]


@pytest.mark.parametrize("mode", MODES)
def test_a_cells_centre_comes_back_exactly(mode: str) -> None:
    codec = HeatmapCodec((16, 20), 8, mode=mode)
    xy = (np.array([[0, 0], [19, 15], [7, 3], [0, 9], [1, 1]]) + 0.5) * 8 - 0.5
    points = codec.decoder()(encode(codec, xy))[0].numpy()
    np.testing.assert_allclose(points[:, :2], xy, atol=0.1)
    np.testing.assert_allclose(points[:, 2], 1, atol=1e-6)


def test_dark_is_finer_than_the_other_modes_on_noisy_maps() -> None:
    xy = random_points(500, 16, SIZE - 17)
    noisy = encode(HeatmapCodec((32, 32)), xy) + 0.02 * torch.randn(
        1, 500, 32, 32, generator=torch.Generator().manual_seed(0)
    )
    mean = {m: np.abs(HeatmapDecoder(4, m)(noisy)[0, :, :2].numpy() - xy).mean() for m in MODES}
    assert mean["dark"] < mean["averaged"] < mean["diff_sign"]


@pytest.mark.parametrize("mode", MODES)
def test_scale_multiplies_coordinates_and_not_the_confidence(mode: str) -> None:
    heatmaps = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    one, four = HeatmapDecoder(1, mode)(heatmaps), HeatmapDecoder(4, mode)(heatmaps)
    assert torch.allclose(four[..., :2], (one[..., :2] + 0.5) * 4 - 0.5)
    assert torch.equal(four[..., 2], one[..., 2])
    assert torch.equal(four[..., 2], heatmaps.amax(dim=(2, 3)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("factor", [1e-6, 0.25, 1000])
def test_the_point_does_not_depend_on_the_maps_height(mode: str, factor: float) -> None:
    codec = HeatmapCodec((32, 32), mode=mode)
    maps = encode(codec, random_points(200, 0, SIZE - 1))
    plain, scaled = codec.decoder()(maps)[..., :2], codec.decoder()(maps * factor)[..., :2]
    assert torch.allclose(plain, scaled, atol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_of_equal_maxima_the_first_in_row_major_order_wins(mode: str) -> None:
    heatmap = torch.zeros(1, 1, 12, 12)
    for row, col in ((2, 9), (6, 2), (6, 6), (9, 5)):
        heatmap[0, 0, row, col] = 3.0
    x, y, confidence = HeatmapDecoder(1, mode, kernel_size=1)(heatmap)[0, 0].tolist()
    assert (round(x), round(y), confidence) == (9, 2, 3.0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", [0.0, 0.7, -2.0])
def test_a_constant_map_decodes_to_its_first_cells(mode: str, level: float) -> None:
    x, y, confidence = HeatmapDecoder(STRIDE, mode)(torch.full((1, 1, 8, 8), level))[0, 0].tolist()
    assert (x, y) == (1.5, 1.5)
    assert confidence == pytest.approx(level)


@pytest.mark.parametrize("mode", MODES)
def test_cells_that_are_not_finite_are_ignored(mode: str) -> None:
    clean = encode(HeatmapCodec((32, 32)), np.array([[60.0, 50.0]]))
    for bad in (float("nan"), float("inf"), -float("inf")):
        broken = clean.clone()
        broken[..., 0, :] = bad
        assert torch.equal(HeatmapDecoder(4, mode)(broken), HeatmapDecoder(4, mode)(clean))
        lost = HeatmapDecoder(4, mode)(torch.full((1, 2, 8, 8), bad))
        assert torch.equal(lost, torch.tensor([1.5, 1.5, 0.0]).expand(1, 2, 3))


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=25, deadline=None)
@given(
    h=st.integers(1, 7),
    w=st.integers(1, 7),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["normal", "integers", "tiny", "huge"]),
)
def test_any_map_decodes_to_a_point_near_its_peak(mode: str, h: int, w: int, seed: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 3, h, w, generator=generator)
    if kind == "integers":
        maps = (maps * 2).round().to(torch.int8)
    elif kind != "normal":
        maps = maps * {"tiny": 1e-38, "huge": 3e37}[kind]
    points = HeatmapDecoder(1, mode)(maps)
    peak = maps.flatten(2).float().argmax(dim=2)
    assert points.dtype == torch.float32
    assert torch.isfinite(points).all()
    assert ((points[..., 0] - peak % w).abs() <= 2).all()
    assert ((points[..., 1] - peak // w).abs() <= 2).all()


def test_the_input_is_left_alone() -> None:
    maps = torch.randn(1, 2, 8, 8)
    maps[0, 0, 0, 0] = float("nan")
    before = maps.clone()
    for mode in MODES:
        HeatmapDecoder(4, mode)(maps)
    assert torch.equal(maps.nan_to_num(7), before.nan_to_num(7))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 4, "mode": "mean"}, "unknown mode"),
        ({"scale": 4, "kernel_size": 4}, "even kernel_size"),
        ({"scale": 0}, "scale is not positive"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HeatmapDecoder(**arguments)  # type: ignore[arg-type]
