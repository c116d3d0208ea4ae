"""The record of one run: resolved config, plugin versions, seed and a line of metrics for each epoch."""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from attrs import frozen

from carkp_core.context import Context


@frozen(eq=False)
class Run:
    """A stage being run; ``dir`` is ``<ckpt_dir>/runs/<stage>-<n>``."""

    dir: Path
    stage: str
    context: Context

    @classmethod
    def open(cls, context: Context) -> Run:
        """Make the next free folder of the stage and write what the run is made of."""
        root = context.ckpt_dir / "runs"
        root.mkdir(parents=True, exist_ok=True)
        number = 0
        while True:
            folder = root / f"{context.stage}-{number}"
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
                continue
            break
        run = cls(folder, context.stage, context)
        (folder / "config.txt").write_text(context.config_text, encoding="utf-8")
        facts = {"seed": context.seed, "march": context.march, "versions": versions(context)}
        (folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        return run

    def discard_unused(self) -> None:
        """Remove the folder of a run that was refused before it did anything."""
        own = {"config.txt", "run.json"}
        if {path.name for path in self.dir.iterdir()} <= own:
            shutil.rmtree(self.dir)

    def log_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``. NaN and infinities become null."""
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        with open(self.dir / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")


def versions(context: Context) -> dict[str, str]:
    """Versions of Python, torch, numpy and of every plugin's distribution."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy"):
        found[name] = metadata.version(name)
    for name, _ in context.plugins.list_name_plugin():
        distribution, _, version = context.plugins.provider(name).partition(" ")
        found[distribution] = version
    return found
