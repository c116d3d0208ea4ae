from __future__ import annotations

import copy

from carkp_core.config.located import LocatedDict, Origin


def test_deepcopy_keeps_origins_but_not_identity():
    inner = LocatedDict()
    inner.put("y", 1, Origin("f.py", 3))
    outer = LocatedDict(x=inner)
    twin = copy.deepcopy(outer)
    assert twin == outer
    assert twin["x"] is not inner
    assert twin["x"].origin("y") == Origin("f.py", 3)


def test_lineage_differs_between_separate_dicts():
    assert LocatedDict(a=1).lineage != LocatedDict(a=1).lineage


def test_union_keeps_both_origins():
    left, right = LocatedDict(), LocatedDict()
    left.put("a", 1, Origin("f.py", 1))
    right.put("b", 2, Origin("f.py", 2))
    both = left | right
    assert both == {"a": 1, "b": 2}
    assert (both.origin("a").line, both.origin("b").line) == (1, 2)


def test_origin_text():
    assert str(Origin("f.py", 2)) == "f.py:2"
    assert str(Origin("--opts")) == "--opts"
