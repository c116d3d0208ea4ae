"""Checkpoint files: tensors and plain values only, written whole or not at all, read without running anything.

==============  =====================================================================================================
``format``      1
``stage``, ``task``, ``march``   what it belongs to
``model``       the state dict of the task model
``epoch``, ``step``   epochs and optimizer steps done
``metrics``     the latest validation's
``sources``     the checkpoints it started from: path, sha256, stage
``training``    in ``last`` only: what ``--resume`` needs
==============  =====================================================================================================
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from carkp_core.errors import CheckpointError
from carkp_core.stages import STAGES

FORMAT = 1

#: What a file may lack: records (torch's name for a module's state that is no tensor), and the learned scales of
#: weights, which QAT takes from the weights that it starts from.
_OPTIONAL = ("_extra_state", ".weight_scale")

#: Names listed of each kind of disagreement; the rest is counted.
_LISTED = 4

_STAGE_OF_FILE = re.compile(rf"({'|'.join(STAGES)})-checkpoint-")


def save_checkpoint(path: Path, payload: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a reader sees the old file or the new one, never a part.

    Raises
    ------
    CheckpointError
        The disk is full, or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save(dict(payload), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(
            "the checkpoint cannot be written",
            where=str(path),
            seen=str(error),
            remedy="free some disk space, or choose another ckpt_dir",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path, config: Path | str | None = None) -> dict[str, Any]:
    """Read a checkpoint file; a bare state dict, or one under ``state_dict``, counts as ``model``.

    Parameters
    ----------
    config:
        The config to name in the command that makes a missing file.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, of a newer format, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError("there is no such checkpoint", where=str(path), remedy=_remedy_for_missing(path, config))
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            "the checkpoint cannot be read",
            where=str(path),
            seen=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            allowed="a file of tensors and plain Python values, as carkp and torch.save write it",
            remedy="make it again; a file with other objects is not read, since reading would run their code",
        ) from error
    return _as_payload(payload, path)


def _as_payload(payload: Any, path: Path) -> dict[str, Any]:
    if isinstance(payload, Mapping) and isinstance(payload.get("format"), int) and "model" in payload:
        if payload["format"] > FORMAT:
            raise CheckpointError(
                "the checkpoint is of a newer format",
                where=str(path),
                seen=str(payload["format"]),
                allowed=f"up to {FORMAT}",
                remedy="update carkp-core",
            )
        return dict(payload)
    state = payload.get("state_dict", payload) if isinstance(payload, Mapping) else payload
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            "the file holds no state dict",
            where=str(path),
            seen=", ".join(map(str, list(payload)[:_LISTED]))
            if isinstance(payload, Mapping)
            else type(payload).__name__,
            allowed="a checkpoint of carkp's, or a mapping of names to tensors",
        )
    return {"format": FORMAT, "model": dict(state)}


def _remedy_for_missing(path: Path, config: Path | str | None) -> str:
    stage = _STAGE_OF_FILE.search(path.name)
    if stage:
        return f"run `carkp train --stage {stage[1]} --config {config or 'CONFIG'}` first"
    return "check the path"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def started_from(path: Path, source: Path) -> bool:
    """Return whether the checkpoint at ``path`` was made from the very file that now stands at ``source``."""
    if not source.is_file():
        return False
    digest = file_digest(source)
    return any(entry.get("sha256") == digest for entry in read_checkpoint(path).get("sources", ()))


@frozen
class LoadReport:
    """How a state dict fitted a model: names of what was taken, what was left out, and shapes that differ."""

    matched: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """True when every name and shape agreed."""
        return not (self.missing or self.unexpected or self.mismatched)

    def differences(self) -> str:
        """Say what disagreed: a count and a few names of each kind."""
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("other shape", self.mismatched))
        return "; ".join(f"{len(names)} {label} ({_few(names)})" for label, names in kinds if names)

    def __str__(self) -> str:
        return f"{self.matched} tensors loaded" + ("" if self.exact else f"; {self.differences()}")


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def load_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    where: str,
    allow_miss: bool = False,
    ignore_extra: bool = False,
    origin: str = "",
) -> LoadReport:
    """Load a state dict into a model.

    Parameters
    ----------
    allow_miss:
        Names of the model that the state lacks keep their values; so do those of another shape, with ``ignore_extra``.
    ignore_extra:
        Names of the state that the model lacks are left out.
    where, origin:
        The file, and what it says it is, for messages.

    Raises
    ------
    CheckpointError
        When the two do not agree as far as asked, or in nothing at all.
    """
    # Modules that load more than tensors (``get_extra_state``) have a say of their own: torch passes it on.
    own = model.state_dict()
    mismatched = {
        name
        for name, value in state.items()
        if name in own
        and isinstance(own[name], Tensor)
        and (not isinstance(value, Tensor) or own[name].shape != value.shape)
    }
    fitting = {name: value for name, value in state.items() if name in own and name not in mismatched}
    tensors = sum(isinstance(value, Tensor) for value in own.values())
    matched = sum(isinstance(value, Tensor) for value in fitting.values())
    report = LoadReport(
        matched=matched,
        missing=tuple(name for name in own if name not in state and not name.endswith(_OPTIONAL)),
        unexpected=tuple(name for name in state if name not in own),
        mismatched=tuple(
            f"{name} {list(getattr(state[name], 'shape', []))}, here {list(own[name].shape)}"
            for name in state
            if name in mismatched
        ),
    )
    refused = (
        (report.missing and not allow_miss)
        or (report.unexpected and not ignore_extra)
        or (report.mismatched and not (allow_miss and ignore_extra))
        or (tensors and not matched)
    )
    if refused:
        raise CheckpointError(
            "the checkpoint belongs to another network" + (f" ({origin})" if origin else ""),
            where=where,
            seen=f"{matched} of {tensors} tensors fit; {report.differences()}",
            allowed="the same names and shapes as the model's" if matched else "at least one tensor that fits",
            remedy="use the config that it was made with, or make it again; allow_miss and ignore_extra load what fits",
        )
    model.load_state_dict(fitting, strict=False)
    return report


def origin_of(payload: Mapping[str, Any]) -> str:
    """Say what a checkpoint says it is."""
    said = [f"{key} {payload[key]}" for key in ("stage", "task") if payload.get(key)]
    return "it says: " + ", ".join(said) if said else ""
