from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_toys import SpotModel, Spots, make_context

from carkp_core.catalog import Component
from carkp_core.errors import ConfigError
from carkp_core.train.collate import default_collate
from carkp_core.train.processors import (
    MultiBatchProcessor,
    collect_loss_by_index,
    collect_loss_by_regex,
    detached,
    total_loss,
)


def batch_of(*indices: int) -> dict[str, Any]:
    spots = Spots()
    return default_collate([spots[index] for index in indices])


def step(batches: list[Any], **options: Any) -> tuple[float, list[torch.Tensor]]:
    """One step from the same weights; the loss and the gradients."""
    torch.manual_seed(0)
    model = SpotModel(norm=False, dropout=0).train()
    processor = MultiBatchProcessor(**options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    grads: list[torch.Tensor] = []

    def before_update(_loss: float) -> None:
        grads.extend(p.grad.clone() for p in model.parameters() if p.grad is not None)

    return processor.train_step(model, optimizer, batches, before_update).loss, grads


@pytest.mark.parametrize("parts", [[(0, 1), (2, 3), (4, 5)], [(0, 1, 2, 3), (4, 5)], [(0,), (1, 2, 3, 4, 5)]])
def test_accumulation_equals_the_big_batch(parts: list[tuple[int, ...]]) -> None:
    whole_loss, whole = step([batch_of(0, 1, 2, 3, 4, 5)])
    loss, grads = step([batch_of(*part) for part in parts], grad_accumulation_step=len(parts))
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    for ours, joint in zip(grads, whole, strict=True):
        torch.testing.assert_close(ours, joint, rtol=1e-4, atol=1e-6)


def test_channels_last_changes_the_memory_and_no_value() -> None:
    model = SpotModel()
    batch = {"img": torch.rand(2, 3, 4, 4), "mask": torch.ones(2, 3, 4, 4, dtype=torch.int64), "names": ["a", "b"]}
    for wanted in (True, False):
        ours = MultiBatchProcessor(enable_channels_last=wanted).prepare(model, batch)
        assert ours["img"].is_contiguous(memory_format=torch.channels_last) is wanted
        assert ours["mask"].is_contiguous()
        assert torch.equal(ours["img"], batch["img"])
        assert ours["names"] == ["a", "b"]


def test_evaluation_makes_no_gradients() -> None:
    processor = MultiBatchProcessor(need_grad_update=False, batch_transforms=[lambda b: {**b, "img": b["img"] * 0}])
    batch, output = processor.evaluate(SpotModel().eval(), batch_of(0, 1))
    assert not output.requires_grad
    assert not batch["img"].any()
    assert torch.equal(output[0], output[1])


def test_amp_computes_in_bfloat16() -> None:
    seen: list[torch.dtype] = []

    class Peek(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 1)

        def forward(self, data: dict[str, Any]) -> Any:
            out = self.layer(data["img"][:, 0, 0])
            seen.append(out.dtype)
            return out, out.float().mean()

    MultiBatchProcessor(enable_amp=True).evaluate(Peek(), batch_of(0))
    MultiBatchProcessor().evaluate(Peek(), batch_of(0))
    assert seen == [torch.bfloat16, torch.float32]
    with pytest.raises(ConfigError, match="enable_amp_dtype"):
        MultiBatchProcessor(enable_amp=True, enable_amp_dtype="float16")
    with pytest.raises(ConfigError, match="grad_accumulation_step"):
        MultiBatchProcessor(grad_accumulation_step=0)


def test_collectors() -> None:
    one, two = torch.tensor(1.0), torch.tensor([1.0, 3.0])
    assert collect_loss_by_index(1)(("pred", one)) is one
    assert total_loss(collect_loss_by_index([1, 2])((0, one, two))) == 3
    assert total_loss(collect_loss_by_regex("^loss")({"loss_a": one, "loss_b": two, "pred": one})) == 3
    with pytest.raises(ConfigError, match="holds no loss") as error:
        collect_loss_by_index(1)(one)
    assert error.value.seen == "Tensor"
    with pytest.raises(ConfigError, match="holds no loss"):
        collect_loss_by_regex("cost")({"loss": one})


def test_collectors_by_name(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    path = "carkp_core.train.processors:collect_loss_by_index"
    context.catalog._found["collect_loss_by_index"] = [Component("loss_collector", "collect_loss_by_index", path)]
    processor = MultiBatchProcessor(loss_collector="collect_loss_by_index", context=context)
    assert processor.loss_collector((0, 5)) == 5
    with pytest.raises(ConfigError, match="unknown type"):
        MultiBatchProcessor(loss_collector="collect_los", context=context)


def test_detached_keeps_the_shape_of_a_nest() -> None:
    leaf = torch.ones(2, requires_grad=True) * 2
    ours = detached({"a": (leaf, [leaf, "text"])})
    assert ours["a"][1][1] == "text"
    assert not ours["a"][0].requires_grad
