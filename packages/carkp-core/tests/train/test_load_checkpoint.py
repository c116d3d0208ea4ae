from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_toys import make_context

from carkp_core.catalog import Component
from carkp_core.errors import CheckpointError, ConfigError
from carkp_core.train.checkpoint import LoadReport, file_digest, load_state, save_checkpoint
from carkp_core.train.convert import ModelConvertPipeline
from carkp_core.train.load_checkpoint import LoadCheckpoint, LoadStage


def saved(path: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = nn.Linear(2, 3).state_dict()
    save_checkpoint(path, {"format": 1, "stage": "float", "task": "toy", "model": state})
    return state


def test_a_file_is_loaded_and_remembered_as_the_source(tmp_path: Path) -> None:
    path = tmp_path / "x.pth.tar"
    state = saved(path)
    pipeline = ModelConvertPipeline([LoadCheckpoint(path), LoadCheckpoint(None)])
    model = pipeline(nn.Linear(2, 3))
    assert torch.equal(model.weight, state["weight"])  # type: ignore[arg-type]
    assert pipeline.sources == [{"path": str(path), "sha256": file_digest(path), "stage": "float"}]


def test_names_can_be_changed_and_what_is_left_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "x.pth.tar")
    renamed = LoadCheckpoint(
        tmp_path / "x.pth.tar",
        allow_miss=True,
        state_dict_update_func=lambda state: {f"0.{name}": value for name, value in state.items()},
    )
    renamed(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    assert (
        "2 tensors loaded; 5 missing (1.weight, 1.bias, 1.running_mean, 1.running_var, ...)" in capfd.readouterr().err
    )


def test_a_stage_out_of_order_names_the_command(tmp_path: Path) -> None:
    context = make_context(tmp_path, config_name="toy.py")
    with pytest.raises(CheckpointError) as error:
        LoadStage("float", context=context)(nn.Linear(1, 1))
    assert error.value.remedy == "run `carkp train --stage float --config toy.py` first"
    saved(context.checkpoint("float"))
    assert LoadStage("float", context=context)(nn.Linear(2, 3)) is not None
    with pytest.raises(CheckpointError, match=r"another network \(it says: stage float, task toy\)"):
        LoadStage("float", context=context)(nn.Linear(2, 4))


def test_a_hash_in_the_name_is_compared(tmp_path: Path) -> None:
    saved(tmp_path / "x.pth.tar")
    digest = file_digest(tmp_path / "x.pth.tar")
    right, wrong = tmp_path / f"x-{digest[:8]}.pth.tar", tmp_path / "x-01234567.pth.tar"
    for path in (right, wrong):
        path.write_bytes((tmp_path / "x.pth.tar").read_bytes())
    LoadCheckpoint(right, check_hash=True)(nn.Linear(2, 3))
    with pytest.raises(CheckpointError, match="not the one that its name says"):
        LoadCheckpoint(wrong, check_hash=True)(nn.Linear(2, 3))


def installed(model: nn.Module) -> LoadReport:
    """Weights that a package brings."""
    return load_state(model, {"weight": torch.full((3, 2), 7.0)}, where="installed", allow_miss=True)


def not_installed(model: nn.Module) -> None:
    """Weights of a package that is not there."""


def test_pretrained_weights_by_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(tmp_path)
    offered = {"pretrained:sevens": installed, "pretrained:absent": not_installed}
    for name in offered:
        context.catalog._found[name] = [Component("model", name, "unused")]
    monkeypatch.setattr(Component, "resolve", lambda self: offered[self.name])
    load: Any = LoadCheckpoint("pretrained:sevens", context=context)
    model = load(nn.Linear(2, 3))
    assert (model.weight == 7).all()
    assert "pretrained:sevens: 1 tensors loaded; 1 missing (bias)" in capfd.readouterr().err
    assert load.source["path"] == "pretrained:sevens"
    LoadCheckpoint("pretrained:absent", context=context)(nn.Linear(2, 3))
    assert "training from scratch" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="no installed package brings 'pretrained:unknown'") as error:
        LoadCheckpoint("pretrained:unknown", context=context)(nn.Linear(2, 3))
    assert error.value.allowed == "pretrained:absent, pretrained:sevens"
