"""What ends up in the picture: light, ground, buildings, sky, cut-outs, sensor."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from carkp_carfusion.data.synth.backdrop import paint_backdrop
from carkp_carfusion.data.synth.billboard import to_billboard
from carkp_carfusion.data.synth.camera import Camera, look
from carkp_carfusion.data.synth.difficulty import DIFFICULTIES, Difficulty
from carkp_carfusion.data.synth.frame import draw
from carkp_carfusion.data.synth.ground import paint_ground
from carkp_carfusion.data.synth.light import make_light
from carkp_carfusion.data.synth.noise import rough_tile, smooth_tile
from carkp_carfusion.data.synth.place import KINDS, make_place
from carkp_carfusion.data.synth.raster import SUPERSAMPLE
from carkp_carfusion.data.synth.scene import Car, Scene, Thing
from carkp_carfusion.data.synth.sensor import encode, expose
from carkp_carfusion.data.synth.shade import Patch, composite
from carkp_carfusion.data.synth.sprites import OCCLUDER_KINDS, STREET_KINDS, library


def sunny(seed: int = 0) -> object:
    return make_light(np.random.default_rng(seed), overcast=0.0, low_sun=0.0)


def scene(camera: Camera, cars: tuple[Car, ...], things: tuple[Thing, ...] = ()) -> Scene:
    return Scene(camera, make_place(0, "train", "x", 0), sunny(), cars, things)  # type: ignore[arg-type]


def draw_plain(drawn: Scene) -> np.ndarray:
    return draw(drawn, 0.0, np.random.default_rng(0)).picture


def test_lamps_show_their_colours_at_their_labels(make_car: Callable[..., Car]) -> None:
    for yaw, points in ((0.0, (6, 7)), (math.pi, (4, 5))):  # seen from behind and from the front
        camera = look((640, 360), 40, np.array([-9.0, 0, 1.4]), yaw=0.0, pitch=0.05)
        frame = draw(scene(camera, (make_car(yaw=yaw),)), 0.3, np.random.default_rng(0))
        for point in points:
            x, y = np.round(frame.labels[0].points_xy[point]).astype(int)
            blue, green, red = frame.picture[y - 1 : y + 2, x - 1 : x + 2].mean(axis=(0, 1))
            if yaw == 0.0:
                assert red > 1.5 * max(blue, green)
            else:
                assert min(blue, green, red) > 120


def test_a_car_changes_the_picture_only_near_itself(camera: Camera, make_car: Callable[..., Car]) -> None:
    car = make_car()
    changed = np.abs(draw_plain(scene(camera, (car,))) - draw_plain(scene(camera, ()))).max(axis=2) > 1
    ys, xs = np.nonzero(changed)
    outline = camera.project(car.mesh.corners.reshape(-1, 3))[0]
    low, high = outline.min(axis=0), outline.max(axis=0)
    assert changed[round(low[1]) + 8 : round(high[1]) - 8, round(low[0]) + 30 : round(high[0]) - 30].mean() > 0.8
    assert xs.min() > low[0] - 120  # the shadow reaches a little farther
    assert xs.max() < high[0] + 120
    assert ys.min() > low[1] - 3


def test_hidden_cars_get_no_label(camera: Camera, make_car: Callable[..., Car]) -> None:
    front = make_car(y=-4.0, style="van")
    for x, least, labelled in ((0.0, 0.0, 1), (4.5, 0.9, 1), (4.5, 0.1, 2)):  # wholly hidden, half hidden
        behind = make_car(x, 4.0, style="city")
        frame = draw(scene(camera, (front, behind)), least, np.random.default_rng(0))
        assert len(frame.labels) == labelled


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_roads_are_asphalt_beside_pavements(number: int) -> None:
    place = make_place(0, "train", "y", number)
    camera = look((640, 360), 60, np.array([2.0, 0, 30.0]), yaw=0.0, pitch=math.pi / 2 - 0.01)
    ground = paint_ground(camera, place).astype(int)
    asphalt = np.abs(ground - np.array(place.asphalt)).max(axis=2) <= 2
    assert asphalt.mean() > 0.3
    if place.kind == "street":
        (x, y), _ = camera.project(np.array([2.0, place.road_half + 1.0, 0.0]))
        assert np.abs(ground[round(y), round(x)] - np.array(place.paving)).max() <= 2


def test_shadows_darken_the_ground(camera: Camera) -> None:
    place, light = make_place(0, "train", "z", 2), sunny()
    patch = np.array([[-2.0, -2, 0], [2, -2, 0], [2, 2, 0], [-2, 2, 0]])
    lit, dark = (
        paint_backdrop(camera, place, light, shadows, [], np.random.default_rng(1))  # type: ignore[arg-type]
        for shadows in ([], [patch])
    )
    (x, y), _ = camera.project(np.zeros(3))
    share = dark[round(y), round(x)].mean() / lit[round(y), round(x)].mean()
    assert share == pytest.approx(light.shadow_share, abs=0.05)  # type: ignore[attr-defined]
    assert np.array_equal(lit[0], dark[0])


def test_a_thing_stands_on_its_foot_at_its_height(camera: Camera) -> None:
    for kind, sprites in library(0, "train").items():
        thing = Thing(sprites[0], np.array([0.5, 2.0, 0.0]), mirrored=kind == "bush")
        board = to_billboard(camera, thing)
        assert board is not None
        (x, y), depth = camera.project(thing.foot)
        height, width = board.picture.shape[:2]
        assert board.low_xy[1] + height == pytest.approx((y + 0.5) * SUPERSAMPLE, abs=1)
        assert board.low_xy[0] + width / 2 == pytest.approx((x + 0.5) * SUPERSAMPLE, abs=1.5)
        assert height == pytest.approx(sprites[0].height_m * camera.focal_px / depth * SUPERSAMPLE, abs=1)
        assert set(np.unique(board.picture[:, :, 3])) <= {0, 255}
        assert (board.picture[-3:, :, 3] > 0).any()  # it touches the ground
    behind = Thing(sprites[0], np.array([0.0, -30.0, 0.0]), mirrored=False)
    assert to_billboard(camera, behind) is None


def test_libraries_differ_between_splits_and_hold_every_kind() -> None:
    train, test = library(0, "train"), library(0, "test")
    assert {*STREET_KINDS, *OCCLUDER_KINDS} <= set(train) == set(test)
    assert train["tree"][0].height_m != test["tree"][0].height_m
    assert library(0, "train") is train


def test_patches_share_a_pixel_by_coverage() -> None:
    picture = np.full((4, 4, 3), 100.0, np.float32)
    half = np.full((1, 1), 0.5, np.float32)
    white, black = (Patch((1, 2), np.full((1, 1, 3), value * 0.5, np.float32), half) for value in (200, 0))
    composite(picture, [white, black])
    assert picture[2, 1] == pytest.approx([100, 100, 100])
    assert picture[0, 0] == pytest.approx([100, 100, 100])
    composite(picture, [white])
    assert picture[2, 1] == pytest.approx([150, 150, 150])


def test_noise_tiles_are_seamless_and_normalised() -> None:
    for tile in (rough_tile(), smooth_tile()):
        assert tile.mean() == pytest.approx(0, abs=1e-3)
        assert tile.std() == pytest.approx(1, abs=1e-3)
        seam = np.abs(tile[0] - tile[-1]).mean()
        assert seam < 1.5 * np.abs(np.diff(tile, axis=0)).mean()


@pytest.mark.parametrize("difficulty", DIFFICULTIES.values(), ids=lambda d: d.name)
def test_the_sensor_repeats_itself_and_writes_a_jpeg(difficulty: Difficulty) -> None:
    scene_light = np.tile(np.linspace(0, 255, 64, dtype=np.float32)[None, :, None], (48, 1, 3))
    before = scene_light.copy()
    first, second = (expose(scene_light, difficulty, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(scene_light, before)
    assert first.dtype == np.uint8
    assert first[:, -8:].mean() > first[:, :8].mean()
    data = encode(first, difficulty, np.random.default_rng(6))
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)


def test_difficulties_grow_harder() -> None:
    easy, normal, hard = (DIFFICULTIES[name] for name in ("easy", "normal", "hard"))
    for one, other in ((easy, normal), (normal, hard)):
        assert one.max_overlap < other.max_overlap
        assert one.truncation < other.truncation
        assert one.apparent_length[0] > other.apparent_length[0]
        assert one.exposure[0] > other.exposure[0]
        assert one.noise[1] < other.noise[1]
        assert one.jpeg_quality[0] > other.jpeg_quality[0]
