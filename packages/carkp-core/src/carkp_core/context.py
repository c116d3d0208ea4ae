"""What a component may know of the run it is built for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from carkp_core.backend import Backend, NpuBackend, find_backend
from carkp_core.catalog import Catalog
from carkp_core.errors import BackendError

if TYPE_CHECKING:
    from carkp_core.plugins import PluginManager


@frozen(eq=False)
class Context:
    """The run's surroundings, given to any component whose callable has a parameter named ``context``."""

    plugins: PluginManager
    catalog: Catalog
    backends: tuple[Backend, ...]
    march: str
    task: str
    ckpt_dir: Path
    stage: str = ""
    seed: int = 0
    resume: bool = False
    #: Threads of the march's simulator; None leaves it to the simulator.
    threads: int | None = None
    config_path: Path | None = None
    #: What ``--config`` said, for messages that name a command.
    config_name: str = ""
    #: The resolved config as text, for the run's records.
    config_text: str = ""
    #: What identifies the deployed network as the config describes it; empty when it describes none.
    network_digest: str = ""
    #: Input name -> the float32 value of one integer step, where the config fixes it (1/128 for pixels).
    input_scales: Mapping[str, float] = field(factory=dict)
    #: Makes one example batch of network inputs, shape (1, C, H, W) each, by name.
    example_inputs: Any = None
    #: Makes the ``CompileOptions`` that the config compiles with.
    compile_options: Any = None

    @property
    def hook(self) -> Any:
        """The plugins' hooks."""
        return self.plugins.hook

    def backend(self) -> NpuBackend:
        """The backend of the march. Raises BackendError when no installed package offers it."""
        return find_backend(self.backends, self.march)

    def backend_or_none(self) -> NpuBackend | None:
        """The backend of the march, or None when no backend is installed at all."""
        try:
            return self.backend()
        except BackendError:
            if self.backends:
                raise
            return None

    def checkpoint(self, stage: str, which: str = "best") -> Path:
        """Where a stage keeps its ``best`` or ``last`` checkpoint."""
        return self.ckpt_dir / f"{stage}-checkpoint-{which}.pth.tar"

    def graph_path(self, which: str = "best") -> Path:
        """Where the integer model's binary form stands, beside int_infer's checkpoint."""
        return self.ckpt_dir / f"int_infer-checkpoint-{which}.ir"

    def operators(self) -> dict[str, Any]:
        """Operator definitions by name, imported now."""
        return {operator.name: operator.resolve() for operator in self.plugins.operators()}
