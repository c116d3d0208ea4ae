"""One number of the integer model is changed: the layer is named, with the numbers of its first differing element.

What the comparison says is held against the reference executor and a sum of products written out here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from compare_toys import change, graph_of, opened, other_multiplier, other_pad, other_weight, put

from carkp_core.compare.comparison import Comparison, compare_session, compare_sides, open_side
from carkp_core.compare.integers import Divergence, IntegerFindings, Witness
from carkp_core.compare.samples import validation_samples
from carkp_core.errors import GraphError
from carkp_core.ir import reference
from carkp_core.ir.arithmetic import quantize
from carkp_core.ir.graph import Graph

SAMPLES = 6


def tensors(graph: Graph, folder: Path) -> dict[str, Any]:
    """All tensors of an integer model on the compared images, by the reference executor."""
    samples = validation_samples(opened(folder), "int_infer", ("img",), SAMPLES)
    ((_, (images,)),) = samples.batches(SAMPLES)
    kind = graph.inputs[0].type
    inputs = {"img": quantize(images.numpy(), kind.scale, kind.dtype)}
    return {**inputs, **reference.execute(graph, inputs, [node.name for node in graph.nodes])}


def sum_of_products(op: Any, x: Any, index: tuple[int, ...]) -> int:
    """The accumulator of one output element of a convolution, by loops; ``x`` is [C, H, W]."""
    channel, row, column = index
    _, per_group, kh, kw = op.weight.shape
    first = channel // (op.weight.shape[0] // op.groups) * per_group
    total = int(op.bias[channel])
    for c in range(per_group):
        for i in range(kh):
            for j in range(kw):
                y = row * op.stride_hw[0] + i - op.padding_tlbr[0]
                z = column * op.stride_hw[1] + j - op.padding_tlbr[1]
                if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                    total += int(op.weight[channel, c, i, j]) * int(x[first + c, y, z])
    return total


def compared(folder: Path, a: str, b: str) -> tuple[Comparison, IntegerFindings]:
    found = compare_session(opened(folder), (a, b), num_samples=SAMPLES)
    assert isinstance(found.findings, IntegerFindings)
    return found, found.findings


CHANGES = [
    ("weight", "wide", other_weight),
    ("weight", "narrow", other_weight),
    ("multiplier", "stem", other_multiplier),
    ("multiplier", "up", other_multiplier),
    ("padding_tlbr", "stem", other_pad),
    ("padding_tlbr", "wide", other_pad),
]


@pytest.mark.parametrize("b", ["int_infer", "hbm"])
@pytest.mark.parametrize(("field", "layer", "update"), CHANGES)
def test_a_changed_number_is_found(folder: Path, field: str, layer: str, update: Any, b: str) -> None:
    whole = graph_of(folder)
    broken = change(whole, layer, update)
    put(folder, broken)
    found, findings = compared(folder, "calibration", b)
    assert not found.ok
    expected, got = tensors(whole, folder), tensors(broken, folder)
    counts = {name: int((expected[name] != got[name]).sum()) for name in expected}
    assert {layer.name: layer.differing for layer in findings.layers} == counts
    assert findings.differing == sum(counts.values()) > 0

    first = findings.first
    assert first is not None
    assert first.layer == layer
    assert layer in first.source
    assert "compare_toys.py" in first.source
    number, *index = (int(i) for i in np.argwhere(expected[layer] != got[layer])[0])
    assert first.index == tuple(index)
    assert first.image == f"sample {number}"
    for witness, graph, values in ((first.a, whole, expected), (first.b, broken, got)):
        node = graph.node(layer)
        op: Any = node.op
        assert witness.value == witness.reference == values[layer][(number, *index)]
        term = witness.terms[0]
        assert (term.name, term.multiplier, term.shift) == (
            "accumulator", op.multiplier[index[0]], op.shift[index[0]]
        )  # fmt: skip
        if node.op.kind == "conv2d":
            assert term.value == sum_of_products(op, values[node.inputs[0]][number], tuple(index))
    assert [text.partition(":")[0] for text in first.parameters] == [field]
    assert field in first.explanation("calibration", b)


def test_the_fused_residual_is_shown_as_its_own_term(folder: Path) -> None:
    put(folder, change(graph_of(folder), "narrow", other_weight))
    _, findings = compared(folder, "int_infer", "calibration")
    assert findings.first is not None
    accumulator, residual = findings.first.a.terms
    op: Any = graph_of(folder).node("narrow").op
    assert (residual.name, residual.multiplier, residual.shift) == ("stem", op.residual.multiplier, op.residual.shift)
    total = round(accumulator.exact + residual.exact)
    assert abs(total - findings.first.a.value) <= 1
    names = [row[0].strip() for row in findings.first.rows()]
    assert names[:5] == ["value", "accumulator", "multiplier", "shift", "exact, in steps"]
    assert names[5] == "stem"


def test_equal_models_have_no_first_difference(trained: Path, tmp_path: Path) -> None:
    from compare_toys import copied

    for pair in (("calibration", "int_infer"), ("int_infer", "hbm"), ("int_infer", "int_infer")):
        found, findings = compared(copied(trained, tmp_path / "-".join(pair)), *pair)
        assert found.ok
        assert findings.first is None
        assert findings.differing == 0
        per_image = sum(layer.elements for layer in findings.layers) // SAMPLES
        assert per_image == 3 * 64 + 6 * 64 * 3 + 6 * 16 + 4 * 64 + 10 * 64 + 64
        assert all(layer.max_difference is None for layer in findings.layers)


def test_a_program_that_computes_wrongly_is_told_from_a_model_that_differs(folder: Path) -> None:
    session = opened(folder)
    a, b = open_side(session, "int_infer"), open_side(session, "hbm")

    def slipped(images: Any) -> Any:
        values = dict(b.walk(images))
        values["avg_pool2d"] = values["avg_pool2d"].copy()
        values["avg_pool2d"][1, 3, 2, 0] += 1
        return values

    samples = validation_samples(session, "int_infer", a.inputs, 3)
    found = compare_sides(session, a, attrs.evolve(b, walk=slipped), samples)
    findings = found.findings
    assert isinstance(findings, IntegerFindings)
    assert findings.first is not None
    assert (findings.first.layer, findings.first.image, findings.first.index) == ("avg_pool2d", "sample 1", (3, 2, 0))
    assert findings.first.a.terms == findings.first.b.terms
    assert findings.first.b.value == findings.first.a.value + 1
    assert "hbm does not give what its own numbers say" in findings.first.explanation("int_infer", "hbm")
    assert findings.differing == 1


def test_the_first_layer_is_the_first_in_execution_order_not_of_the_first_image(folder: Path) -> None:
    session = opened(folder)
    side = open_side(session, "int_infer")
    batches: list[int] = []

    def slipped(images: Any) -> Any:
        values = {name: value.copy() for name, value in side.walk(images).items()}
        values["head" if not batches else "stem"][0, 0, 0, 0] ^= 1
        batches.append(len(images[0]))
        return values

    import carkp_core.compare.comparison as comparison

    samples = validation_samples(session, "int_infer", side.inputs, 4)
    before, comparison.BATCH_IMAGES = comparison.BATCH_IMAGES, 2
    try:
        found = compare_sides(session, side, attrs.evolve(side, name="other", walk=slipped), samples)
    finally:
        comparison.BATCH_IMAGES = before
    assert batches == [2, 2]
    assert isinstance(found.findings, IntegerFindings)
    assert found.findings.first is not None
    assert (found.findings.first.layer, found.findings.first.image) == ("stem", "sample 2")


def test_another_input_size_is_refused(folder: Path) -> None:
    session = opened(folder)
    side = open_side(session, "int_infer")
    cut = attrs.evolve(side, walk=lambda images: {n: v[..., :4] for n, v in side.walk(images).items()})
    samples = validation_samples(session, "int_infer", side.inputs, 1)
    with pytest.raises(GraphError, match="another shape on each side"):
        compare_sides(session, side, cut, samples)


def test_what_cannot_be_told_is_not_claimed() -> None:
    first = Divergence("x", "conv2d", "", "a.png", (0,), Witness(1), Witness(2), hidden_inputs=("y",))
    assert "the cause may lie before: y" in first.explanation("a", "b")
    assert first.rows() == [("value", "1", "2")]
    assert first.to_json()["a"] == {
        "value": 1, "accumulator": None, "multiplier": None, "shift": None, "terms": [], "reference": None,
    }  # fmt: skip
