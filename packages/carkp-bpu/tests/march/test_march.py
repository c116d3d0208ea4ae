from __future__ import annotations

import attrs
import pytest

from carkp_bpu.march import MARCHES, Fact, Range, find_march
from carkp_bpu.march.base import March, assumed, published, reassumed
from carkp_bpu.march.bayes import POOL
from carkp_bpu.plugin import MARCHES as OFFERED
from carkp_core.errors import BackendError


def facts(march: March) -> list[tuple[str, Fact[object]]]:
    records = (getattr(march, field.name) for field in attrs.fields(March))
    return [
        (f"{type(record).__name__}.{name}", fact)
        for record in records
        if attrs.has(type(record))
        for name, fact in attrs.asdict(record, recurse=False).items()
    ]


@pytest.mark.parametrize("march", MARCHES, ids=lambda m: m.name)
def test_every_number_names_its_source(march: March) -> None:
    found = facts(march)
    assert len(found) > 60
    for name, fact in found:
        assert isinstance(fact, Fact), name
        assert len(fact.source) > 10, name


@pytest.mark.parametrize("march", MARCHES, ids=lambda m: m.name)
def test_what_no_vendor_publishes_is_an_assumption(march: March) -> None:
    hardware, costs = march.hardware, march.costs
    hidden = (hardware.sram_bytes, hardware.mac_pixels, hardware.mac_in_channels, costs.conv_efficiency)
    assert all(fact.assumption for fact in (*hidden, costs.feature_bytes_per_cycle, costs.instruction_cycles))


def test_every_offered_march_has_a_table() -> None:
    assert tuple(march.name for march in MARCHES) == OFFERED
    assert [find_march(name).name for name in OFFERED] == list(OFFERED)


def test_an_unknown_march_is_named_with_the_known_ones() -> None:
    with pytest.raises(BackendError, match="no march 'bayes2'") as caught:
        find_march("bayes2")
    assert "bernoulli2, bayes, bayes-e, nash-e, nash-m" in str(caught.value)


def test_ranges_hold_their_ends() -> None:
    assert 1 in Range(1, 7)
    assert 7 in Range(1, 7)
    assert 8 not in Range(1, 7)
    assert 10**9 in Range(1, None)
    assert (str(Range(1, 7)), str(Range(2, None))) == ("1..7", "at least 2")


def test_facts_know_where_they_come_from() -> None:
    assert published("a data sheet")(5) == Fact(5, "a data sheet")
    assert str(assumed("a guess")(5)) == "5 (assumed)"


def test_limits_taken_over_from_another_march_are_assumptions() -> None:
    taken = reassumed(POOL, "not published")
    assert taken.max_kernel == Fact(POOL.max_kernel.value, "not published", assumption=True)
    assert not POOL.max_kernel.assumption


def test_plain_numbers_follow_from_the_facts() -> None:
    bayes = find_march("bayes")
    assert bayes.dma_bytes_per_cycle == pytest.approx(bayes.ddr_bytes_per_s / bayes.clock_hz)
    assert bayes.mac_block == (8, 32, 32)
    assert bayes.dtypes == ("int8", "int16")
