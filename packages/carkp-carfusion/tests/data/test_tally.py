from __future__ import annotations

import io

import pytest
from rich.console import Console

from carkp_carfusion.data.tally import MAX_EXAMPLES, REASONS, Tally


def test_tallies_add_up_and_keep_the_first_examples():
    first = Tally.of([("malformed_line", f"a:{n}") for n in range(2)])
    second = Tally.of([("malformed_line", f"b:{n}") for n in range(9)] + [("too_small", "c")])
    total = first + second
    assert total.counts() == {"malformed_line": 11, "too_small": 1}
    assert total.reasons["malformed_line"].examples == ("a:0", "a:1", "b:0")
    assert len(total.reasons["malformed_line"].examples) == MAX_EXAMPLES
    assert len(total) == 12
    assert not Tally()


def test_json_round_trip_and_unknown_reasons():
    tally = Tally.of([("missing_image", "x"), ("empty_folder", "y")])
    assert Tally.from_json(tally.to_json()) == tally
    with pytest.raises(ValueError, match="unknown reasons"):
        Tally.from_json({"bad weather": {"count": 1, "examples": []}})


def test_the_table_names_reason_meaning_and_example():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(Tally.of([("missing_image", "train/car_a/images_jpg/1.jpg")]).table())
    text = console.export_text()
    assert "missing_image" in text
    assert "train/car_a/images_jpg/1.jpg" in text
    assert REASONS["missing_image"].split(" without")[0] in text
