"""The hooks of carkp, in the order of a run's life.

A plugin is a module named by an entry point of the group ``carkp``::

    [project.entry-points.carkp]
    mine = "my_package.plugin"

    # my_package/plugin.py
    from carkp_core import hookimpl
    from carkp_core.catalog import Component

    @hookimpl
    def carkp_components():
        yield Component("backbone", "MyNet", "my_package.net:MyNet")

It holds hook implementations only and imports nothing heavy: a part is named here and imported when it is
built. Annotations are strings for the same reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from carkp_core.backend import Backend
    from carkp_core.catalog import Component
    from carkp_core.commands import Command
    from carkp_core.operator import Operator
    from carkp_core.runs import Run

PROJECT = "carkp"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def carkp_components() -> Iterable[Component]:
    """Name the parts that configs may ask for.

    Called once, before the first config is built. Every plugin's answer is used. Names are unique across
    kinds and plugins; a clash is fatal only for the config that uses the name.
    """


@hookspec
def carkp_configs() -> Mapping[str, str]:
    """Name the configs that this package ships: name -> path of the file.

    Called when ``--config`` is not the path of a file. A name that two plugins offer is an error when it
    is used.
    """


@hookspec
def carkp_commands() -> Iterable[Command]:
    """Add commands to ``carkp``.

    Called when the command line is built, so also for ``carkp --help``: a ``Command`` holds a name, one
    line of help and the import path of a click command that is imported when it is run.
    """


@hookspec
def carkp_backends() -> Iterable[Backend]:
    """Offer an NPU: its name, its marches and where its implementation is imported from.

    Called when a march is looked up. Two backends with one march are an error when that march is used.
    """


@hookspec
def carkp_operators() -> Iterable[Operator]:
    """Offer operators: how a node of the float graph is recognised and becomes integer arithmetic.

    Called once when a graph is quantized or an integer model is read. Every plugin's answer is used.
    """


@hookspec(firstresult=True)
def carkp_quant_scheme(node: Any, march: str) -> Any:
    """Choose how one node of the traced graph is quantized, or return None to leave it to others.

    Called once for each node while it is annotated, with the ``torch.fx.Node`` and the march; the first
    answer that is not None wins. Where no plugin answers, the march's backend is asked, and then it is int8.
    """


@hookspec
def carkp_run_started(run: Run) -> None:
    """A stage of a config starts: open loggers or trackers.

    Called once in each process, after the run's folder and its resolved config exist and before the first
    step.
    """


@hookspec
def carkp_epoch_finished(run: Run, epoch: int, metrics: Mapping[str, float]) -> None:
    """An epoch is over, validation included.

    ``run`` is what ``carkp_run_started`` got. ``epoch`` counts from 0. ``metrics`` are fractions in 0..1, losses
    and pixels as their names say.
    Called in each process, once an epoch; a stage without epochs calls it once with epoch 0.
    """


@hookspec
def carkp_run_finished(run: Run, error: BaseException | None) -> None:
    """A stage has ended: close what ``carkp_run_started`` opened.

    Called once in each process. ``error`` is what ended the run early (KeyboardInterrupt for Ctrl-C), or
    None.
    """
