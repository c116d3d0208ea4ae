from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from train_toys import make_context, make_trainer, spot_loader

from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.callbacks.grad_scale import GradScale


def gradients(folder: Path, *callbacks: Callback) -> dict[str, torch.Tensor]:
    """The first step's gradients as the optimizer gets them."""
    found: dict[str, torch.Tensor] = {}

    class Note(Callback):
        def on_gradients(self, training: Any) -> None:
            named = training.model.named_parameters()
            found.update({name: p.grad.clone() for name, p in named if p.grad is not None})

    trainer = make_trainer(
        make_context(folder), dropout=0, callbacks=[*callbacks, Note()], num_epochs=1, data_loader=spot_loader(4, 4)
    )
    trainer.fit()
    return found


def test_the_gradients_of_a_module_are_scaled(tmp_path: Path) -> None:
    plain = gradients(tmp_path)
    scaled = gradients(tmp_path, GradScale([("network.0", 0.25)]))
    last = gradients(tmp_path, GradScale([("5", 0.0)]))
    for name, gradient in plain.items():
        assert torch.equal(scaled[name], gradient * 0.25 if name.startswith("network.0") else gradient)
        assert torch.equal(last[name], gradient * 0 if name.startswith("network.5") else gradient)


@pytest.mark.parametrize("order", [2.0, 1.0, float("inf")])
def test_clipping(tmp_path: Path, order: float) -> None:
    def norm(found: dict[str, torch.Tensor]) -> float:
        return float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in found.values()]), ord=order))

    plain = gradients(tmp_path)
    limit = norm(plain) / 2
    assert norm(gradients(tmp_path, GradScale(clip_grad_norm=limit, clip_norm_type=order))) == pytest.approx(
        limit, 1e-4
    )
    loose = gradients(tmp_path, GradScale(clip_grad_norm=norm(plain) * 2, clip_norm_type=order))
    assert all(torch.equal(loose[name], plain[name]) for name in plain)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no module 'bakbone'"):
        gradients(tmp_path, GradScale([("bakbone", 0.1)]))
    with pytest.raises(ConfigError, match="not positive"):
        GradScale(clip_grad_norm=0)
