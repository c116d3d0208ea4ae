"""Skeletons: what the keypoints of a data set are called, mirror to and connect to.

Everything that needs to know a keypoint's meaning (flips, drawings, tables per keypoint) asks a `Skeleton`;
a data set brings its own, stored in its LMDB. Only this file and the shipped configs know of 12 points and cars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from carkp_core.errors import DataError

Rgb = tuple[int, int, int]


def _names(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(name) for name in value)


def _ids(value: Iterable[int]) -> tuple[int, ...]:
    return tuple(int(item) for item in value)


def _pairs(value: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(a), int(b)) for a, b in value)


def _colours(value: Sequence[Sequence[int]]) -> tuple[Rgb, ...]:
    return tuple((int(r), int(g), int(b)) for r, g, b in value)


@frozen
class Skeleton:
    """The K keypoints of one kind of object.

    Parameters
    ----------
    name:
        What the skeleton is called in messages.
    keypoints:
        K distinct names; a keypoint's index is its place here.
    flip_pairs:
        Index pairs that change places when the image is mirrored left to right. Disjoint.
    edges:
        Index pairs to connect in drawings.
    colours:
        K colours, RGB 0..255. Left out: shades chosen by index.
    raw_ids:
        K ids by which the raw labels call the keypoints; empty when the raw labels are not carkp's business.

    Raises
    ------
    ValueError
        If an index is out of range, a point is in two pairs, or a length isn't K.
    """

    name: str
    keypoints: tuple[str, ...] = field(converter=_names)
    flip_pairs: tuple[tuple[int, int], ...] = field(default=(), converter=_pairs)
    edges: tuple[tuple[int, int], ...] = field(default=(), converter=_pairs)
    colours: tuple[Rgb, ...] = field(default=(), converter=_colours)
    raw_ids: tuple[int, ...] = field(default=(), converter=_ids)

    def __attrs_post_init__(self) -> None:
        count = len(self.keypoints)
        if not count or len(set(self.keypoints)) != count:
            raise ValueError(f"skeleton {self.name!r} needs one or more distinct keypoint names")
        paired = [index for pair in self.flip_pairs for index in pair]
        if len(set(paired)) != len(paired):
            raise ValueError(f"skeleton {self.name!r}: a keypoint is in two flip pairs")
        used = [*paired, *(index for edge in self.edges for index in edge)]
        if any(not 0 <= index < count for index in used):
            raise ValueError(f"skeleton {self.name!r}: pairs and edges must lie in 0..{count - 1}")
        for what, values in (("colours", self.colours), ("raw_ids", self.raw_ids)):
            if values and len(values) != count:
                raise ValueError(f"skeleton {self.name!r} has {count} keypoints, but {len(values)} {what}")
        if any(not 0 <= channel <= 255 for colour in self.colours for channel in colour):
            raise ValueError(f"skeleton {self.name!r}: colours are RGB in 0..255")
        if len(set(self.raw_ids)) != len(self.raw_ids):
            raise ValueError(f"skeleton {self.name!r}: two keypoints share a raw id")

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def flip_index(self) -> tuple[int, ...]:
        """K indices: keypoint ``i`` of a mirrored image is keypoint ``flip_index[i]`` of the original."""
        index = list(range(len(self)))
        for left, right in self.flip_pairs:
            index[left], index[right] = right, left
        return tuple(index)

    def colour(self, index: int) -> Rgb:
        """The colour of a keypoint."""
        return self.colours[index] if self.colours else _SHADES[index % len(_SHADES)]

    def index_of_raw_id(self) -> dict[int, int]:
        """Raw id -> index, for the kept keypoints."""
        return {raw_id: index for index, raw_id in enumerate(self.raw_ids)}

    def to_json(self) -> dict[str, Any]:
        """Plain values, read back by `Skeleton.from_json`."""
        return {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            "edges": [list(edge) for edge in self.edges],
            "colours": [list(colour) for colour in self.colours],
            "raw_ids": list(self.raw_ids),
        }

    @classmethod
    def from_json(cls, value: object, where: str = "skeleton") -> Skeleton:
        """Read what `to_json` wrote.

        Raises
        ------
        DataError
            If ``value`` isn't a skeleton; ``where`` names the file.
        """
        try:
            if not isinstance(value, Mapping):
                raise TypeError(f"expected an object, got {type(value).__name__}")
            known = {"name", "keypoints", "flip_pairs", "edges", "colours", "raw_ids"}
            return cls(**{key: item for key, item in value.items() if key in known})
        except (TypeError, ValueError) as error:
            raise DataError(
                "not a skeleton",
                where=where,
                seen=str(error),
                allowed="name, keypoints, flip_pairs, edges, colours, raw_ids as `Skeleton.to_json` writes them",
            ) from error


def plain_skeleton(count: int) -> Skeleton:
    """A skeleton for ``count`` points of which nothing is known: no pairs, no edges."""
    return Skeleton("points", tuple(f"point_{index}" for index in range(count)))


_SHADES: tuple[Rgb, ...] = (
    (230, 80, 60), (250, 150, 50), (240, 210, 60), (140, 200, 70), (60, 180, 120), (50, 180, 200),
    (70, 130, 230), (120, 100, 230), (180, 90, 220), (230, 90, 170), (170, 130, 100), (150, 160, 170),
)  # fmt: skip

#: Every keypoint id of the raw labels; 9 (exhaust) and 14 (centre) are not kept.
CARFUSION_RAW_IDS = tuple(range(1, 15))

_CAR_COLOURS: tuple[Rgb, ...] = (
    (230, 60, 50), (60, 110, 240), (250, 110, 40), (60, 160, 250), (255, 190, 40), (40, 200, 220),
    (240, 60, 130), (120, 90, 240), (255, 140, 130), (130, 180, 255), (220, 110, 200), (150, 140, 255),
)  # fmt: skip

#: The 12 kept keypoints of CarFusion. Right is the car's own right; its points are warm, the left ones cold.
CARFUSION = Skeleton(
    name="carfusion",
    keypoints=(
        "right_front_wheel",
        "left_front_wheel",
        "right_rear_wheel",
        "left_rear_wheel",
        "right_head_light",
        "left_head_light",
        "right_tail_light",
        "left_tail_light",
        "right_front_roof",
        "left_front_roof",
        "right_rear_roof",
        "left_rear_roof",
    ),
    flip_pairs=((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)),
    edges=(
        *((0, 2), (1, 3), (0, 1), (2, 3)),  # wheels
        *((4, 5), (6, 7), (8, 9), (10, 11), (8, 10), (9, 11)),  # lamps, roof
        *((0, 4), (1, 5), (2, 6), (3, 7), (4, 8), (5, 9), (6, 10), (7, 11)),  # pillars
    ),
    colours=_CAR_COLOURS,
    raw_ids=(1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13),
)
