"""Calibration and the integer stage, with networks that keep the contract of quantized ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_toys import Near, SpotModel, make_context, spot_loader

from carkp_core.errors import ConfigError, QuantizationError
from carkp_core.ir.binary import read, to_bytes
from carkp_core.ir.graph import Graph, GraphInput, Node, TensorType
from carkp_core.ir.operators import MaxPool
from carkp_core.train.calibrator import Calibrator
from carkp_core.train.callbacks.validation import Validation
from carkp_core.train.checkpoint import read_checkpoint
from carkp_core.train.integer import IntegerTrainer


class Observed(nn.Module):
    """Divides by the largest value that it has observed: the smallest network with a scale."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner = network
        self.register_buffer("scale", torch.ones(()))
        self.observing = False
        self.batches = 0

    def start_observing(self) -> None:
        self.observing, self.batches = True, 0
        self._largest = 0.0

    def finish_observing(self) -> None:
        self.observing = False
        if not self._largest:
            raise QuantizationError("no data", where="inner")
        self.scale.fill_(self._largest)

    def forward(self, img: Tensor) -> Tensor:
        if self.observing:
            assert not self.training
            self.batches += 1
            self._largest = max(self._largest, float(img.abs().max()))
        return self.inner(img / self.scale)  # type: ignore[no-any-return]


def observe(model: Any) -> Any:
    model.network = Observed(model.network)
    return model


def calibrator(folder: Path, **changes: Any) -> Calibrator:
    context = make_context(folder, stage="calibration")
    given: dict[str, Any] = {
        "data_loader": spot_loader(12, 4),
        "num_steps": 7,
        "callbacks": [Validation(spot_loader(6))],
        "val_metrics": [Near()],
        "model_convert_pipeline": observe,
        "log_interval": 0.7,
    }
    return Calibrator(SpotModel(dropout=0), **(given | changes), context=context)


def test_it_observes_so_many_batches_and_saves_best_and_last(tmp_path: Path) -> None:
    trainer = calibrator(tmp_path)
    metrics = trainer.fit()
    network = trainer._trainer.model.network
    assert network.batches == 7, "three batches an epoch, so the data is gone through again"
    assert network.scale > 1
    assert sorted(metrics) == ["dist", "near"]
    best, last = (read_checkpoint(trainer.context.checkpoint("calibration", which)) for which in ("best", "last"))
    assert best["model"]["network.scale"] == last["model"]["network.scale"] == network.scale
    assert best["stage"] == "calibration"


def test_a_model_without_observers(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="no observers") as error:
        calibrator(tmp_path, model_convert_pipeline=None).fit()
    assert "Float2Calibration" in str(error.value.remedy)
    assert not list(tmp_path.glob("*.pth.tar"))


def test_no_steps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_steps"):
        calibrator(tmp_path, num_steps=0)


def test_the_integer_stage_writes_the_graph_beside_both_checkpoints(tmp_path: Path) -> None:
    context = make_context(tmp_path, stage="int_infer")
    kind = TensorType((1, 1, 8, 8), "int8", 1.0)
    pooled = Node("y", MaxPool((2, 2), (2, 2)), ("x",), TensorType((1, 1, 4, 4), "int8", 1.0))
    graph = Graph("toy", (GraphInput("x", kind),), (pooled,), ("y",))

    def convert(model: Any) -> Any:
        model.network.graph = graph
        return model

    callbacks = [Validation(spot_loader(6))]
    metrics = IntegerTrainer(SpotModel(), convert, callbacks=callbacks, val_metrics=[Near()], context=context).fit()
    assert sorted(metrics) == ["dist", "near"]
    for which in ("best", "last"):
        assert to_bytes(read(context.graph_path(which))) == to_bytes(graph)
        assert context.checkpoint("int_infer", which).exists()
