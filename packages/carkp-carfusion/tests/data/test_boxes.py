from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.data.boxes import (
    BoxRules,
    assign_boxes,
    hull_of,
    iou,
    parse_boxes,
    rows_in_window,
    widen,
    window_of,
)
from carkp_carfusion.data.raw import parse_labels

RULES = BoxRules()


def test_both_forms_of_a_box_line_are_read():
    boxes, tally = parse_boxes("1,2,30.5,40,7\n\n1.5,2,3,4\n", "bb/x.txt")
    assert boxes == [((1, 2, 30.5, 40), 7), ((1.5, 2, 3, 4), None)]
    assert not tally


@pytest.mark.parametrize(
    "line", ["1,2,3", "1,2,3,4,5,6", "a,2,3,4", "5,2,3,4,0", "1,9,3,4", "nan,2,3,4", "1,2,3,4,0.5", "1,2,inf,4,0"]
)
def test_other_lines_are_malformed(line: str):
    boxes, tally = parse_boxes(f"{line}\n1,2,3,4,5\n", "bb/x.txt")
    assert boxes == [((1, 2, 3, 4), 5)]
    assert tally.reasons["malformed_box"].examples == (f"bb/x.txt:1: {line}",)


def test_a_box_with_an_id_goes_to_that_car():
    hulls = {0: (0.0, 0.0, 10.0, 10.0), 1: (50.0, 50.0, 90.0, 90.0)}
    given_boxes = [((40.0, 40.0, 95.0, 95.0), 0), ((0.0, 0.0, 12.0, 12.0), 8)]
    chosen, tally = assign_boxes(given_boxes, hulls, RULES, "bb/x.txt")
    assert chosen == {0: (40, 40, 95, 95)}
    assert tally.counts() == {"unmatched_box": 1}


def test_a_box_without_an_id_goes_to_the_car_it_overlaps_most():
    hulls = {0: (0.0, 0.0, 10.0, 10.0), 1: (5.0, 0.0, 15.0, 10.0)}
    chosen, tally = assign_boxes([((4.0, 0.0, 16.0, 11.0), None)], hulls, RULES, "x")
    assert chosen == {1: (4, 0, 16, 11)}
    assert not tally


@pytest.mark.parametrize(("width", "taken"), [(30.0, True), (29.9, False)])
def test_it_needs_an_overlap_of_three_tenths(width: float, taken: bool):
    # The hull lies inside the box: the overlap is width x 10 over 100 x 10.
    chosen, tally = assign_boxes([((0.0, 0.0, 100.0, 10.0), None)], {0: (0.0, 0.0, width, 10.0)}, RULES, "x")
    assert (0 in chosen) == taken
    assert tally.count("unmatched_box") == (not taken)


def test_of_two_boxes_for_one_car_the_better_is_taken():
    hulls = {0: (0.0, 0.0, 10.0, 10.0)}
    chosen, tally = assign_boxes([((0.0, 0.0, 20.0, 10.0), None), ((0.0, 0.0, 12.0, 10.0), None)], hulls, RULES, "x")
    assert chosen == {0: (0, 0, 12, 10)}
    assert tally.count("unmatched_box") == 1


def test_a_car_without_valid_points_keeps_its_box_from_being_called_foreign():
    chosen, tally = assign_boxes([((0.0, 0.0, 20.0, 10.0), 5)], {5: None}, RULES, "x")
    assert chosen == {5: (0, 0, 20, 10)}
    assert not tally


def test_points_outside_the_frame_are_not_in_the_hull():
    (car,), _ = parse_labels("10,20,1,0,1\n30,25,2,0,1\n-50,20,3,0,1\n500,20,4,0,1\n", "x")
    assert hull_of(car, 100, 100) == (10, 20, 30, 25)
    assert hull_of(car, 5, 5) is None


def test_the_hull_is_widened_by_a_tenth_and_by_fifteen_hundredths():
    assert widen((100.0, 200.0, 200.0, 240.0), RULES) == pytest.approx((90, 196, 215, 246))


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-50, 250)] * 4), st.integers(1, 200), st.integers(1, 200))
def test_a_window_lies_in_the_image_and_holds_the_box(values: tuple[float, ...], width: int, height: int):
    x1, x2 = sorted(values[:2])
    y1, y2 = sorted(values[2:])
    left, top, right, bottom = window_of((x1, y1, x2, y2), width, height)
    assert left >= 0
    assert top >= 0
    assert right <= width
    assert bottom <= height
    assert left <= max(x1, 0)
    assert right >= min(x2, width)


def test_iou():
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)


def test_rows_are_in_crop_pixels_and_valid_inside_only():
    (car,), _ = parse_labels("10,20,1,0,1\n30,25,2,0,1\n40,25,3,0,1\n-5,20,4,0,1\n", "x")
    rows = rows_in_window(car, (8, 18, 40, 60), 100, 100)
    assert rows.shape == (12, 3)
    assert rows[:4].tolist() == [[2, 2, 1], [22, 7, 1], [32, 7, 0], [-13, 2, 0]]
    assert (rows[4:] == 0).all(), "not labelled"
    assert np.isin(rows[:, 2], (0, 1)).all()
