"""Instructions survive the way through bytes and text; damaged bytes raise BackendError and nothing else."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.encoding import decode_instructions, encode, encode_instructions
from carkp_bpu.hbm.forms import LIMITS, Each, Many, Nested, Optional, Scalar, forms
from carkp_bpu.hbm.listing import format_instruction, format_listing, parse_listing
from carkp_bpu.hbm.validity import check_instruction
from carkp_core.errors import BackendError

MAP = isa.FeatureMap(64, 1, 8, 8, 4, 4, 32, 8, 0, 0)
VIEW = isa.View(0, 1, (32, 4, 0, 1))
DIMS = (8, 8, 1, 4)
SAMPLES: tuple[isa.Instruction, ...] = (
    isa.Load((1, 2, 3, 4), 1 << 40, 64, (2, 3, 4, 5), (60, 20, 5), (60, 20, 5)),
    isa.Store(isa.NO_WAITS, 0, 64, (1, 1, 1, 7), (0, 0, 0), (0, 0, 0)),
    isa.Conv(
        isa.NO_WAITS, MAP, MAP, isa.Residual(MAP, 1 << 30, 40, 1), 1, 2, (0, 8), (0, 8),
        (3, 3), (1, 1), (1, 1), (1, 1), 1, -128, 127,
    ),
    isa.Conv(isa.NO_WAITS, MAP, MAP, None, 1, 2, (0, 1), (0, 8), (1, 1), (1, 1), (1, 1), (0, 0), 4, 0, 127),
    isa.Deconv(isa.NO_WAITS, MAP, MAP, 1, 2, (0, 8), (0, 8), (4, 4), (2, 2), (1, 1), 1, -128, 127),
    isa.Pool(
        isa.NO_WAITS, MAP, MAP, 1, (0, 8), (0, 8), (3, 3), (1, 1), (1, 1), (1, 1), (0, 3), 1, 1, 0, 9, 3,
        (0, 0, 10, 10), -128, 127,
    ),
    isa.Resize(isa.NO_WAITS, MAP, MAP, 1, (0, 8), (0, 8), (4, 4), (2, 2), (-1, -1), 1 << 30, 34, -128, 127),
    isa.Add(isa.NO_WAITS, DIMS, VIEW, (isa.Term(VIEW, 1, 16, 0), isa.Term(VIEW, 2, 62, 1)), -128, 127),
    isa.Mul(isa.NO_WAITS, DIMS, VIEW, VIEW, VIEW, 1 << 30, 40, -128, 127),
    isa.Rescale(isa.NO_WAITS, DIMS, VIEW, VIEW, 1 << 30, 30, -128, 127),
    isa.Clamp(isa.NO_WAITS, DIMS, VIEW, VIEW, 0, 127),
    isa.Table(isa.NO_WAITS, DIMS, VIEW, VIEW, 512, 256, 1, 256),
    isa.Copy(isa.NO_WAITS, DIMS, VIEW, VIEW),
    isa.Fill(isa.NO_WAITS, DIMS, VIEW, -128),
)  # fmt: skip


def values(record: type) -> st.SearchStrategy:
    """Any record whose numbers fit their fields."""

    def number(code: str) -> st.SearchStrategy[int]:
        return st.integers(*LIMITS[code])

    def field(form) -> st.SearchStrategy:
        match form:
            case Scalar(code):
                return number(code)
            case Each(code, count):
                return st.tuples(*[number(code)] * count)
            case Nested(nested):
                return values(nested)
            case Optional(nested):
                return st.none() | values(nested)
            case Many(nested):
                return st.lists(values(nested), max_size=3).map(tuple)

    return st.builds(record, **{name: field(form) for name, form in forms(record)})


def test_the_samples_cover_every_instruction():
    assert {type(sample) for sample in SAMPLES} == set(isa.INSTRUCTIONS)
    assert len({kind.OPCODE for kind in isa.INSTRUCTIONS}) == len(isa.INSTRUCTIONS)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: type(s).__name__)
def test_bytes_and_text_round_trip(sample):
    check_instruction(sample)
    assert decode_instructions(encode(sample)) == (sample,)
    assert len(encode(sample)) % 4 == 0
    assert parse_listing([format_instruction(sample)]) == (sample,)


@settings(max_examples=40, deadline=None)
@given(st.one_of([values(kind) for kind in isa.INSTRUCTIONS]))
def test_any_numbers_round_trip_through_text(instruction):
    assert parse_listing([format_instruction(instruction)]) == (instruction,)


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.none() | st.integers(0, 10**6))
def test_damage_raises_backend_error_or_decodes(position, bit, cut):
    data = bytearray(encode_instructions(SAMPLES))
    data[position % len(data)] ^= 1 << bit
    if cut is not None:
        data = data[: cut % len(data)]
    try:
        decoded = decode_instructions(bytes(data))
    except BackendError as error:
        told = f"{error}"
    else:
        assert encode_instructions(decoded) == bytes(data)
        return
    assert "cannot be decoded" in told
    assert "offset" in told


def test_numbers_outside_their_field_are_refused():
    with pytest.raises(ValueError, match=r"FeatureMap.address is -1"):
        attrs.evolve(MAP, address=-1)
    with pytest.raises(ValueError, match=r"Load.dims is .* not 4 integers"):
        attrs.evolve(SAMPLES[0], dims=(1, 2, 3))


def test_too_many_terms_are_refused():
    many = attrs.evolve(SAMPLES[7], terms=(isa.Term(VIEW, 1, 16, 0),) * 256)
    with pytest.raises(ValueError, match="256 records"):
        encode(many)


def test_the_listing_shows_layers_once_and_ignores_comments():
    lines = list(format_listing(SAMPLES[:3], ["layer a", "layer a", "layer b"]))
    assert lines[0] == "# 0: layer a"
    assert lines[3] == "# 2: layer b"
    assert parse_listing(lines) == SAMPLES[:3]


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("jump to=1", "'jump' is none of"),
        ("load waits=0,0,0,0 ddr=1", "ends early"),
        ("fill waits=0,0,0,0 dims=1,1,1,1 output=(address=0 dtype=1 strides=0,0,0,0) value=300000000000", "outside"),
        (format_instruction(SAMPLES[0]) + " more=1", "behind the last field"),
        (format_instruction(SAMPLES[0]).replace("sram=", "dram="), "where 'sram' belongs"),
        (format_instruction(SAMPLES[0]).replace("sram=64", "sram=sixty"), "sixty"),
    ],
)
def test_a_bad_line_is_named(line, seen):
    with pytest.raises(BackendError, match="not an instruction") as caught:
        parse_listing(["# fine", line])
    assert caught.value.where == "line 2"
    assert seen in str(caught.value.seen)
