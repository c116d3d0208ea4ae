"""Converters that load weights into a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from carkp_core.context import Context
from carkp_core.errors import CheckpointError, ConfigError
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.stages import STAGES
from carkp_core.train.checkpoint import file_digest, load_state, origin_of, read_checkpoint
from carkp_core.train.distributed import is_main_process

PRETRAINED = "pretrained:"

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth(?:\.tar)?$")


class LoadCheckpoint:
    """Load a checkpoint file, or pretrained weights by name.

    Parameters
    ----------
    checkpoint_path:
        A file, or ``pretrained:NAME`` for weights that an installed package brings. None loads nothing.
    allow_miss, ignore_extra:
        Tolerate names that only the model, or only the file, has. What was left out is said.
    state_dict_update_func:
        Changes the state dict before it is loaded, such as renaming.
    check_hash:
        Compare the eight hexadecimal digits at the end of the file's name, if it has them, with its SHA-256.
    verbose:
        Say what was loaded even if everything fitted.
    """

    def __init__(
        self,
        checkpoint_path: str | Path | None,
        allow_miss: bool = False,
        ignore_extra: bool = False,
        state_dict_update_func: Callable[[dict[str, Tensor]], Mapping[str, Tensor]] | None = None,
        check_hash: bool = False,
        verbose: bool = False,
        context: Context | None = None,
    ) -> None:
        self.checkpoint_path = checkpoint_path
        self.allow_miss = allow_miss
        self.ignore_extra = ignore_extra
        self.state_dict_update_func = state_dict_update_func
        self.check_hash = check_hash
        self.verbose = verbose
        self.context = context
        #: What was loaded: path, sha256, stage. Kept in the checkpoints made from it.
        self.source: dict[str, str] = {}

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the model with the weights in it."""
        if self.checkpoint_path is None:
            return model
        name = str(self.checkpoint_path)
        if name.startswith(PRETRAINED):
            return self._load_pretrained(model, name)
        return self._load_file(model, Path(self.checkpoint_path))

    def _load_file(self, model: nn.Module, path: Path) -> nn.Module:
        payload = read_checkpoint(path, self.context.config_name if self.context else None)
        digest = file_digest(path)
        said = _HASH_IN_NAME.search(path.name) if self.check_hash else None
        if said and not digest.startswith(said[1]):
            raise CheckpointError("the checkpoint is not the one that its name says", where=str(path), seen=digest[:8])
        state = payload["model"]
        if self.state_dict_update_func is None:
            _require_stage(payload, model, path)
        else:
            state = self.state_dict_update_func(dict(state))
        report = load_state(
            model,
            state,
            where=str(path),
            allow_miss=self.allow_miss,
            ignore_extra=self.ignore_extra,
            origin=origin_of(payload),
        )
        self.source = {"path": str(path), "sha256": digest, "stage": str(payload.get("stage", ""))}
        if self.verbose or not report.exact:
            _say(f"{path}: {report}")
        return model

    def _load_pretrained(self, model: nn.Module, name: str) -> nn.Module:
        catalog = self.context.catalog if self.context else {}
        if name not in catalog:
            known = sorted(n for n in catalog if n.startswith(PRETRAINED))
            raise ConfigError(
                f"no installed package brings {name!r}",
                where="LoadCheckpoint.checkpoint_path",
                allowed=", ".join(known) or "none is installed; None trains from scratch",
            )
        report: Any = catalog[name].resolve()(model)
        if report is not None:
            self.source = {"path": name, "sha256": "", "stage": "pretrained"}
        _say(f"{name}: {report}" if report is not None else f"{name} is not installed: training from scratch")
        return model


class LoadStage(LoadCheckpoint):
    """Load the ``best`` checkpoint of a stage of this config."""

    def __init__(self, stage: str, which: str = "best", *, context: Context) -> None:
        super().__init__(context.checkpoint(stage, which), context=context)


def _require_stage(payload: Mapping[str, Any], model: nn.Module, path: Path) -> None:
    """Refuse weights of a network that is not quantized yet for one that is, and the other way round."""
    quantized = isinstance(getattr(model, "network", model), QuantizedNetwork)
    allowed = ("calibration", "qat") if quantized else ("float",)
    stage = payload.get("stage")
    if stage not in STAGES or stage in allowed:
        return
    here = "a quantized network" if quantized else "a network that is not quantized yet"
    raise CheckpointError(
        f"{here} cannot load the checkpoint of this stage",
        where=str(path),
        seen=f"stage {stage}",
        allowed=" or ".join(allowed),
        remedy=_OTHERWISE[stage],
    )


#: What to do with a stage's checkpoint that came to the wrong place.
_OTHERWISE = {
    "float": "name another stage's file, or load this one before Float2Calibration and Float2QAT",
    "calibration": "name float's file, or load this one behind Float2Calibration or Float2QAT",
    "qat": "name float's file, or load this one behind Float2QAT",
    "int_infer": "name another stage's file: this one has no weights, its model is the .ir beside it",
}


def _say(text: str) -> None:
    if is_main_process():
        Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
