from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from joint_batch import make_batch, make_model
from torch import nn

from carkp_core.train.sync_bn import JointBatchNorm, convert_sync_bn


def torchrun(*arguments: str) -> list[str]:
    """The command that starts two processes on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]


def test_two_processes_equal_one_on_the_joint_batch(tmp_path: Path, process_env: dict[str, str]) -> None:
    script = Path(__file__).with_name("joint_batch.py")
    subprocess.run(torchrun(str(script), str(tmp_path / "out")), env=process_env, check=True, timeout=120)
    model = make_model()
    x, target = make_batch()
    x.requires_grad_()
    for _ in range(2):
        model.zero_grad()
        x.grad = None
        nn.functional.mse_loss(model(x), target).backward()
    for rank in range(2):
        result = torch.load(tmp_path / f"out.{rank}", weights_only=True)
        for ours, joint in zip(result["grads"], model.parameters(), strict=True):
            torch.testing.assert_close(ours, joint.grad, rtol=1e-5, atol=1e-6)
        # A process's loss is the mean over its half, so its inputs' gradients are twice the joint batch's.
        assert x.grad is not None
        torch.testing.assert_close(result["x"], 2 * x.grad[rank::2], rtol=1e-5, atol=1e-6)
        tolerated, refused = result["unused"]
        assert tolerated == ""
        assert "find_unused_parameters=True" in refused
        for name, value in model.state_dict().items():
            torch.testing.assert_close(result["state"][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(3), nn.BatchNorm2d(3, eps=0.1, momentum=None), nn.BatchNorm3d(3)])
def test_conversion_keeps_parameters_names_and_settings(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Sequential(norm.eval()), nn.ReLU())
    names = list(model.state_dict())
    weight = norm.weight
    converted = convert_sync_bn(model, torch.device("cpu"))
    joint = converted[0][0]  # type: ignore[index]
    assert isinstance(joint, JointBatchNorm)
    assert list(converted.state_dict()) == names
    assert joint.weight is weight
    assert (joint.eps, joint.momentum, joint.training) == (norm.eps, norm.momentum, False)


def test_in_one_process_it_is_torchs_own() -> None:
    torch.manual_seed(0)
    plain, x = nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5)
    joint = convert_sync_bn(nn.BatchNorm2d(3), torch.device("cpu"))
    assert torch.equal(plain(x), joint(x))
    assert torch.equal(plain.running_var, joint.running_var)  # type: ignore[arg-type]
