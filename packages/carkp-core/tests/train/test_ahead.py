"""Work done ahead is the same work: order, errors and end; and never more of it than asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from carkp_core.train.ahead import ahead, overlapping


def alive() -> int:
    return sum(thread.name == "carkp-ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("count", [1, 2, 50])
def test_items_come_in_order(count: int) -> None:
    assert list(ahead(lambda: range(20), count)) == list(range(20))
    assert alive() == 0


def test_items_are_made_while_others_are_used_but_not_too_many() -> None:
    made: list[int] = []
    third = threading.Event()

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    found = ahead(items, 2)
    assert next(found) == 0
    assert third.wait(10), "made while nobody asks"
    assert next(found) == 1
    # One is used, two lie ready, one waits for room.
    assert max(made) <= 4
    found.close()
    assert alive() == 0
    assert max(made) < 9


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("lost")

    found = ahead(items, 5)
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(KeyError, match="lost"):
        next(found)
    assert alive() == 0


def test_nothing_starts_before_it_is_asked_for() -> None:
    ahead(lambda: [1], 1)
    assert alive() == 0


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("items", [0, 1, 7])
def test_overlapping_results_come_in_order(count: int, items: int) -> None:
    assert list(overlapping(lambda item: item * item, range(items), count)) == [item * item for item in range(items)]


def test_calls_overlap_but_not_too_many() -> None:
    together = threading.Barrier(2)
    running, most = [0], [0]
    lock = threading.Lock()

    def call(item: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        together.wait(10)  # breaks unless two calls run at a time
        with lock:
            running[0] -= 1
        return item

    assert list(overlapping(call, range(6), 2)) == list(range(6))
    assert most == [2]


def test_an_error_of_a_call_comes_in_its_place() -> None:
    def call(item: int) -> int:
        if item == 2:
            raise KeyError("third")
        return item

    found = overlapping(call, range(5), 2)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(KeyError, match="third"):
        next(found)
