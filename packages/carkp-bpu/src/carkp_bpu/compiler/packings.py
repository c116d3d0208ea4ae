"""Allocation problems whose best plan is known: buffers cut out of a full rectangle of memory and time.

The live bytes equal the height at every time, so any plan above the height is worse than the best, and nothing is left
over to be careless with. Cuts go through (guillotine) or turn round a middle piece (pinwheel), which no sequence of
cuts through can make.
"""

from __future__ import annotations

import random

from carkp_bpu.compiler.allocate import ALIGNMENT, Buffer

#: Offset, size, first time and duration.
Piece = tuple[int, int, int, int]

_PINWHEELS = 0.3
_CUTS_OF_MEMORY = 0.65


def perfect_packing(count: int, seed: int, height: int = 1 << 20, steps: int = 400) -> list[Buffer]:
    """About ``count`` buffers, at least as many, in random order, that fill ``height`` bytes for ``steps`` times."""
    chance = random.Random(seed)
    pieces: list[Piece] = [(0, height, 0, steps)]
    while len(pieces) < count:
        chosen = max(range(len(pieces)), key=lambda i: pieces[i][1] * pieces[i][3] * chance.random())
        pieces += _cut(pieces.pop(chosen), chance)
    chance.shuffle(pieces)
    return [Buffer(str(i), size, first, first + length - 1) for i, (_, size, first, length) in enumerate(pieces)]


def _cut(piece: Piece, chance: random.Random) -> list[Piece]:
    """A piece in two or five; whole where it is too small for the cut that chance wants."""
    at, size, first, length = piece
    kind = chance.random()
    if kind < _PINWHEELS and size >= 4 * ALIGNMENT and length >= 4:
        low, high = sorted(chance.sample(range(ALIGNMENT, size, ALIGNMENT), 2))
        early, late = sorted(chance.sample(range(1, length), 2))
        return [
            (at, low, first, late),
            (at, high, first + late, length - late),
            (at + high, size - high, first + early, length - early),
            (at + low, size - low, first, early),
            (at + low, high - low, first + early, late - early),
        ]
    if kind < _CUTS_OF_MEMORY and size >= 2 * ALIGNMENT:
        cut = chance.randrange(ALIGNMENT, size, ALIGNMENT)
        return [(at, cut, first, length), (at + cut, size - cut, first, length)]
    if length >= 2:
        when = chance.randrange(1, length)
        return [(at, size, first, when), (at, size, first + when, length - when)]
    return [piece]
