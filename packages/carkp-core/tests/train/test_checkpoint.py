from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from carkp_core.errors import CheckpointError
from carkp_core.train.checkpoint import (
    LoadReport,
    file_digest,
    load_state,
    read_checkpoint,
    save_checkpoint,
    started_from,
)


def payload(**changes: Any) -> dict[str, Any]:
    return {"format": 1, "stage": "float", "task": "toy", "model": nn.Linear(2, 3).state_dict(), **changes}


def test_what_is_saved_is_read_and_no_temporary_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.pth.tar"
    given = payload()
    save_checkpoint(path, given)
    ours = read_checkpoint(path)
    assert all(torch.equal(ours["model"][name], value) for name, value in given["model"].items())
    assert [p.name for p in path.parent.iterdir()] == ["x.pth.tar"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pth.tar"
    save_checkpoint(path, payload(epoch=1))
    with pytest.raises((AttributeError, TypeError, RuntimeError, Exception), match=r"local|pickle"):
        save_checkpoint(path, payload(model=lambda: None))
    assert read_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth.tar"]


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint") as error:
        read_checkpoint(tmp_path / "float-checkpoint-best.pth.tar", "my.py")
    assert error.value.remedy == "run `carkp train --stage float --config my.py` first"
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(tmp_path / "other.pth")
    assert error.value.remedy == "check the path"


class Evil:
    def __reduce__(self) -> Any:
        return (Path("/tmp/carkp-was-here").touch, ())


@pytest.mark.parametrize("kind", ["garbage", "empty", "cut", "code"])
def test_a_file_that_is_damaged_or_holds_code_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.pth.tar"
    if kind == "code":
        torch.save({"model": Evil()}, path)
    else:
        save_checkpoint(path, payload())
        whole = path.read_bytes()
        path.write_bytes({"garbage": b"not a checkpoint", "empty": b"", "cut": whole[: len(whole) // 2]}[kind])
    with pytest.raises(CheckpointError, match="cannot be read") as error:
        read_checkpoint(path)
    assert error.value.seen
    assert not Path("/tmp/carkp-was-here").exists()


def test_foreign_forms(tmp_path: Path) -> None:
    state = nn.Linear(2, 3).state_dict()
    for name, content in (("bare", state), ("wrapped", {"state_dict": state, "epoch": 3})):
        torch.save(content, tmp_path / name)
        assert list(read_checkpoint(tmp_path / name)["model"]) == ["weight", "bias"]
    torch.save({"weights": [1, 2]}, tmp_path / "list")
    with pytest.raises(CheckpointError, match="holds no state dict") as error:
        read_checkpoint(tmp_path / "list")
    assert error.value.seen == "weights"
    save_checkpoint(tmp_path / "newer", payload(format=99))
    with pytest.raises(CheckpointError, match="newer format"):
        read_checkpoint(tmp_path / "newer")


def test_started_from_compares_contents(tmp_path: Path) -> None:
    source, made = tmp_path / "source", tmp_path / "made"
    save_checkpoint(source, payload())
    save_checkpoint(made, payload(sources=[{"path": "elsewhere", "sha256": file_digest(source), "stage": "float"}]))
    assert started_from(made, source)
    save_checkpoint(source, payload(epoch=2))
    assert not started_from(made, source)
    assert not started_from(made, tmp_path / "missing")


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_an_exact_load() -> None:
    state = model().state_dict()
    report = load_state(model(), state, where="here")
    assert (report.matched, report.exact, str(report)) == (7, True, "7 tensors loaded")


def test_another_network_is_refused_with_counts_and_names() -> None:
    state = model().state_dict()
    state["0.weight"] = torch.zeros(5, 2)
    del state["1.bias"]
    state.update({f"head.{n}": torch.zeros(1) for n in range(9)})
    with pytest.raises(CheckpointError, match="another network") as error:
        load_state(model(), state, where="file", origin="it says: stage qat")
    seen = str(error.value.seen)
    assert "5 of 7 tensors fit" in seen
    assert "1 missing (1.bias)" in seen
    assert "9 unexpected (head.0, head.1, head.2, head.3, ...)" in seen
    assert "1 other shape (0.weight [5, 2], here [3, 2])" in seen
    assert "it says: stage qat" in str(error.value)


def test_a_partial_load_reports_what_it_left() -> None:
    ours, state = model(), model().state_dict()
    state["extra"] = torch.zeros(1)
    state["0.weight"] = torch.zeros(5, 2)
    del state["1.bias"]
    kept = ours[0].weight.clone()  # type: ignore[index]
    report = load_state(ours, state, where="file", allow_miss=True, ignore_extra=True)
    assert report.matched == 5
    assert (report.missing, report.unexpected, len(report.mismatched)) == (("1.bias",), ("extra",), 1)
    assert torch.equal(ours[0].weight, kept)  # type: ignore[index]
    assert torch.equal(ours[0].bias, state["0.bias"])  # type: ignore[index]
    for options in ({"allow_miss": True}, {"ignore_extra": True}):
        with pytest.raises(CheckpointError):
            load_state(model(), state, where="file", **options)


def test_nothing_in_common_is_refused_in_any_case() -> None:
    with pytest.raises(CheckpointError, match="another network"):
        load_state(model(), {"a": torch.zeros(1)}, where="file", allow_miss=True, ignore_extra=True)
    assert load_state(nn.ReLU(), {}, where="file") == LoadReport(0)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(tmp_path / "file" / "x.pth.tar", payload())
