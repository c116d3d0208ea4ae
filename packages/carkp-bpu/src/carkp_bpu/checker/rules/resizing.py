"""Rules of resizes. Output position o samples input position (o x denominator + offset) / numerator, clamped."""

from __future__ import annotations

from fractions import Fraction

from carkp_bpu.checker.rule import Site, rule
from carkp_bpu.march.base import March


def factors(site: Site) -> tuple[Fraction, Fraction]:
    """Output over input size along H and W."""
    (out_h, out_w), (height, width) = site.op.size_hw, site.inputs[0].shape[-2:]
    return Fraction(out_h, height), Fraction(out_w, width)


def _power_of_two(value: Fraction) -> bool:
    return value.numerator & (value.numerator - 1) == 0 and value.denominator & (value.denominator - 1) == 0


def _factor_words(site: Site) -> str:
    height, width = factors(site)
    return f"factors {height} x {width}"


@rule(
    "resize",
    facts=("shape.nearest_power_of_two",),
    allowed=lambda march: (
        "1, 2, 4, 8, ... along H and W" if march.shape.nearest_power_of_two.value else "whole numbers along H and W"
    ),
    remedy="upsample by a power of two, or use bilinear",
)
def resize_nearest_factor(site: Site) -> str | None:
    """A nearest resize enlarges by whole factors, powers of two where the march asks for them. Only there does the
    hardware, which samples at cell centres, agree with torch."""
    if site.op.mode != "nearest":
        return None
    fits = all(f.denominator == 1 for f in factors(site))
    fits &= not site.march.shape.nearest_power_of_two.value or all(_power_of_two(f) for f in factors(site))
    return None if fits else _factor_words(site)


@rule(
    "resize",
    facts=("shape.bilinear_power_of_two",),
    allowed=lambda march: "powers of two, 1/2 and so on included" if march.shape.bilinear_power_of_two.value else None,
    remedy="resize by a power of two",
)
def resize_bilinear_factor(site: Site) -> str | None:
    """A bilinear resize's factors are powers of two where the march asks for them."""
    free = site.op.mode != "bilinear" or not site.march.shape.bilinear_power_of_two.value
    return None if free or all(_power_of_two(f) for f in factors(site)) else _factor_words(site)


@rule(
    "resize",
    facts=("shape.resize_h_at_most_w",),
    allowed=lambda march: (
        f"{'H factor at most W factor'}{'' if march.shape.bilinear_power_of_two.value else ' (nearest)'}"
        if march.shape.resize_h_at_most_w.value
        else None
    ),
    remedy="resize by the same factor in both directions",
)
def resize_direction(site: Site) -> str | None:
    """A resize's factor along H is at most its factor along W, where the march asks for it: for every mode when
    its bilinear factors are bound to powers of two as well, else for nearest."""
    shape = site.march.shape
    bound = shape.resize_h_at_most_w.value and (site.op.mode == "nearest" or shape.bilinear_power_of_two.value)
    height, width = factors(site)
    return _factor_words(site) if bound and height > width else None


def _range_words(march: March) -> str:
    return f"over 1/{march.shape.resize_factor.value.hi}, at most {march.shape.resize_factor.value.hi}"


@rule("resize", facts=("shape.resize_factor",), allowed=_range_words, remedy="resize in two steps")
def resize_range(site: Site) -> str | None:
    """A resize's factors lie between the march's limit and its inverse."""
    limit = site.march.shape.resize_factor.value.hi
    fits = limit is None or all(Fraction(1, limit) < f <= limit for f in factors(site))
    return None if fits else _factor_words(site)


@rule(
    "resize",
    allowed="each pixel repeated, from the first on",
    remedy="use torch's nearest with a whole scale_factor, and slice or pad in an operator of its own",
)
def resize_nearest_grid(site: Site) -> str | None:
    """A nearest resize repeats each pixel of the input as many times as the factor says."""
    if site.op.mode != "nearest" or any(f.denominator != 1 for f in factors(site)):
        return None
    op = site.op
    grid = zip(op.size_hw, op.numerator_hw, op.denominator_hw, op.offset_hw, factors(site), strict=True)
    for axis, (out, n, d, offset, factor) in enumerate(grid):
        # Round half up of the position, in integers.
        moved = next((o for o in range(out) if (2 * (o * d + offset) + n) // (2 * n) != o // factor), None)
        if moved is not None:
            return f"a shifted grid: position {moved} along {'HW'[axis]}"
    return None


@rule(
    "resize",
    allowed="align_corners=False",
    remedy="set align_corners=False",
)
def resize_bilinear_grid(site: Site) -> str | None:
    """A bilinear resize samples at pixel centres, as align_corners=False does."""
    if site.op.mode != "bilinear":
        return None
    op = site.op
    grid = zip(op.offset_hw, op.numerator_hw, op.denominator_hw, factors(site), strict=True)
    centred = all(2 * offset == d - n and n == factor * d for offset, n, d, factor in grid)
    return None if centred else f"steps {op.denominator_hw} / {op.numerator_hw} from {op.offset_hw}"
