"""What surrounds a stage: its processes, device, run folder, signals and the plugins' hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import field, frozen
from rich.console import Console

from carkp_core.context import Context
from carkp_core.errors import CarkpError
from carkp_core.runs import Run
from carkp_core.train.distributed import World, choose_device, joined_world
from carkp_core.train.interrupts import Interrupt, StoppedError, watched_signals
from carkp_core.train.seeding import seed_everything


@frozen(eq=False)
class Environment:
    """The surroundings of a stage that is being run."""

    context: Context
    world: World
    device: torch.device
    #: Standard error; silent in all but the main process.
    console: Console
    interrupt: Interrupt
    #: The record of the run; None for ``predict``, which keeps none.
    run: Run | None = None
    #: What is closed with the environment.
    resources: ExitStack = field(factory=ExitStack)
    _said: set[str] = field(factory=set, init=False)

    def say(self, text: str) -> None:
        """Print a line on standard error, once for all processes."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def say_once(self, text: str) -> None:
        """Print a line that was not printed before."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def log(self, record: dict[str, Any]) -> None:
        """Append a record to the run's ``metrics.jsonl``, once for all processes."""
        if self.run is not None and self.world.is_main:
            self.run.log_metrics(record)

    def stop_if_asked(self) -> None:
        """Raise ``StoppedError`` in every process once one of them was asked to stop.

        All processes must call it at the same places: what each knows is exchanged.
        """
        if self.world.any(self.interrupt.signum is not None):
            raise StoppedError(max(self.world.gather(self.interrupt.signum or 0)))


@contextmanager
def stage_environment(context: Context, device: Any = None) -> Iterator[Environment]:
    """Open the surroundings of a stage: join the processes, open the run, tell the plugins, and close all again.

    The plugins' ``carkp_run_finished`` is called also when the block raises, with the error.
    """
    with plain_environment(context, device) as plain:
        run = _shared_run(context, plain.world)
        environment = attrs.evolve(plain, run=run)
        seed_everything(context.seed, plain.world.rank)
        error: BaseException | None = None
        try:
            context.hook.carkp_run_started(run=run)
            yield environment
        except BaseException as raised:
            error = raised
            raise
        finally:
            context.hook.carkp_run_finished(run=run, error=error)
            if isinstance(error, CarkpError) and plain.world.is_main:
                run.discard_unused()


@contextmanager
def plain_environment(context: Context, device: Any = None) -> Iterator[Environment]:
    """Open surroundings that leave no record: processes, device and signals."""
    with joined_world() as world, watched_signals() as interrupt:
        chosen = choose_device(device, world)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        environment = Environment(context, world, chosen, Console(stderr=True, quiet=not world.is_main), interrupt)
        with environment.resources:
            yield environment


def _shared_run(context: Context, world: World) -> Run:
    """One folder for all processes, made by the main one."""
    opened = Run.open(context) if world.is_main else None
    folder = world.broadcast(str(opened.dir) if opened else None)
    return opened or Run(Path(folder), context.stage, context)
