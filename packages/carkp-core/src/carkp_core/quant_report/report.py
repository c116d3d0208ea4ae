"""``carkp quant-report`` as a function: open the network, measure what the journal lacks, say what to do."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from carkp_core.errors import ConfigError
from carkp_core.progress import progress
from carkp_core.quant.sensitivity.findings import Sensitivity, findings
from carkp_core.quant.sensitivity.measurement import BatchSums, measure, measured_layers
from carkp_core.quant.sensitivity.mixed import MixedNetwork
from carkp_core.quant.sensitivity.outline import outline
from carkp_core.quant_report.feed import Feed
from carkp_core.quant_report.journal import Journal
from carkp_core.quant_report.latency import with_latencies
from carkp_core.quant_report.source import Source, open_source
from carkp_core.quant_report.trial import Trial
from carkp_core.runs import versions
from carkp_core.session import Session
from carkp_core.train.environment import Environment, plain_environment
from carkp_core.train.interrupts import StoppedError
from carkp_core.train.seeding import seed_everything

Say = Callable[[str], None]

#: Batches on which an observer that chooses compares its candidates, where the network is calibrated on the spot.
CHOOSING_BATCHES = 4
#: Samples that the numbers are of, unless asked for otherwise.
SAMPLES = 256


@frozen
class ReportOptions:
    """What a user may choose. ``layers`` are shell patterns of names; none stands for all layers."""

    stage: str | None = None
    samples: int = SAMPLES
    batch_size: int | None = None
    layers: tuple[str, ...] = ()
    fresh: bool = False


@frozen(eq=False)
class QuantReport:
    """What was found, and of what."""

    task: str
    stage: str
    march: str
    checkpoints: tuple[str, ...]
    notes: tuple[str, ...]
    sensitivity: Sensitivity

    def to_json(self) -> dict[str, Any]:
        """The fixed machine-readable form. It holds no time, so that it is the same however often a run was stopped."""
        return {
            "task": self.task,
            "stage": self.stage,
            "march": self.march,
            "checkpoints": list(self.checkpoints),
            "notes": list(self.notes),
            **self.sensitivity.to_json(),
        }


def report_session(
    session: Session, options: ReportOptions, out_dir: Path | None = None, say: Say = lambda _: None
) -> QuantReport:
    """Measure a config's quantized network layer by layer.

    Parameters
    ----------
    session:
        The opened config.
    out_dir:
        Where the journal stands; by default ``report_dir``.
    say:
        Told whether an earlier run is gone on with.

    Raises
    ------
    ConfigError, CheckpointError, DataError
        When the stage was not run yet, a pattern fits no layer, or the data cannot be read.
    StoppedError
        When it was asked to stop; the journal keeps the batches that were measured.
    """
    seed_everything(session.context.seed)
    source = open_source(session, options.stage)
    with plain_environment(session.context, source.device) as environment:
        _require_one_process(environment)
        _place(source, environment)
        feed = Feed(source, environment, options.samples, options.batch_size)
        trial = Trial(source)
        if source.uncalibrated:
            _calibrate(source, feed, trial, environment)
        network = MixedNetwork(source.network)
        wanted = _wanted(measured_layers(network), options.layers)
        key = _key(session, source, feed, trial, wanted)
        folder = out_dir or report_dir(session, source.stage)
        journal = Journal(folder / "journal.jsonl", key, options.fresh)
        _say_where(journal, len(feed), say)
        _measure(network, feed, trial, wanted, journal, environment)
        found = findings(journal.batches, outline(network, source.observer), trial.compute, source.lower_is_better)
    found = with_latencies(found, network.network, session)
    return QuantReport(
        task=session.context.task,
        stage=source.stage,
        march=session.context.march,
        checkpoints=tuple(source["path"] for source in source.checkpoints),
        notes=source.notes,
        sensitivity=found,
    )


def report_dir(session: Session, stage: str) -> Path:
    """Where the files of a report stand unless asked for otherwise."""
    return session.context.ckpt_dir / "quant-report" / stage


def _place(source: Source, environment: Environment) -> None:
    """On the device, with weights laid out as the images will be."""
    source.network.to(environment.device)
    if getattr(source.processor, "enable_channels_last", False):
        source.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _calibrate(source: Source, feed: Feed, trial: Trial, environment: Environment) -> None:
    network = source.network
    batches = [trial.images(raw) for raw in feed.batches()]
    network.start_observing()
    with torch.no_grad(), progress("calibrate", len(feed), environment.console) as advance:
        for images in batches:
            network(*images)
            advance()
            environment.stop_if_asked()
    network.finish_observing(batches=batches[:CHOOSING_BATCHES] if network.chooses else ())


def _measure(
    network: MixedNetwork, feed: Feed, trial: Trial, wanted: Sequence[str], journal: Journal, environment: Environment
) -> None:
    """Measure the batches that the journal lacks."""
    done = len(journal.batches)
    if done >= len(feed):
        return
    with progress("quant-report", (len(feed) - done) * len(wanted), environment.console) as advance:

        def measured(name: str) -> None:
            advance(note=name)
            environment.stop_if_asked()

        try:
            for raw in feed.batches(done):
                made: BatchSums = measure(network, trial.images(raw), trial.score, wanted, measured)
                journal.add(made)
        except StoppedError as stop:
            kept = f"{len(journal.batches)} of {len(feed)} batches are kept: the same command goes on from there"
            raise StoppedError(stop.signum, kept) from stop


def _say_where(journal: Journal, total: int, say: Say) -> None:
    done = len(journal.batches)
    if journal.discarded:
        say(f"an earlier run's journal is not used: {journal.discarded}")
    elif done >= total:
        say(f"all {total} batches were measured by an earlier run (--fresh measures them again)")
    elif done:
        say(f"going on after {done} of {total} batches that an earlier run measured")


def _wanted(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    found = [name for name in names if not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns)]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            close = difflib.get_close_matches(pattern, names, 1, 0.4)
            raise ConfigError(
                "no layer's name fits the pattern",
                where="--layers",
                seen=pattern,
                remedy=f"did you mean {close[0]!r}?" if close else "a * stands for any characters: '*.depthwise.*'",
            )
    return found


def _key(session: Session, source: Source, feed: Feed, trial: Trial, wanted: Sequence[str]) -> dict[str, Any]:
    """All that the numbers depend on; the data by their number and the first batch."""
    network = source.network
    state = hashlib.sha256()
    for name, value in network.state_dict().items():
        if isinstance(value, torch.Tensor):
            state.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    first = hashlib.sha256()
    for image in trial.images(next(iter(feed.batches()))):
        first.update(image.cpu().contiguous().numpy().tobytes())
    return {
        "stage": source.stage,
        "march": session.context.march,
        "config": session.context.config_text,
        "network": state.hexdigest(),
        "dtypes": {name: layer.dtype for name, layer in network.scaled_layers()},
        "data": first.hexdigest(),
        "samples": feed.samples,
        "batches": len(feed),
        "layers": list(wanted),
        "versions": versions(session.context),
    }


def _require_one_process(environment: Environment) -> None:
    if environment.world.size > 1:
        raise ConfigError(
            "quant-report runs in one process",
            seen=f"{environment.world.size} processes",
            remedy="run it without torchrun",
        )
