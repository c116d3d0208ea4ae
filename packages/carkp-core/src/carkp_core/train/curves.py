"""The picture of a run: loss, learning rate and validation metrics over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

#: Names of a history's record that are not validation metrics.
_OTHERS = ("epoch", "step", "lr")


def draw_curves(history: Sequence[Mapping[str, float]], losses: Sequence[tuple[int, float, float]], path: Path) -> None:
    """Draw a run as a PNG; nothing without an epoch.

    Parameters
    ----------
    history:
        One record an epoch: ``epoch`` (from 0), ``step``, ``lr``, and metrics by name.
    losses:
        Step, loss and learning rate at each logged step.
    """
    if not history:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for record in history for name in record if name not in _OTHERS))
    lost = [name for name in names if name.startswith("loss")]
    rest = [name for name in names if name not in lost]
    panels = [[name] for name in rest]
    figure = Figure(figsize=(4.5 * (2 + len(panels)), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 + len(panels), squeeze=False)[0]
    steps_per_epoch = max(history[-1]["step"] / max(len(history), 1), 1)
    if losses:
        axes[0].plot([s / steps_per_epoch for s, _, _ in losses], [v for _, v, _ in losses], color="0.75", label="step")
    for name in lost:
        axes[0].plot(*_series(history, name), marker=".", label=name)
    axes[0].set(title="training loss", xlabel="epoch", yscale="log")
    if losses or lost:
        axes[0].legend()
    if losses:
        axes[1].plot([s / steps_per_epoch for s, _, _ in losses], [r for _, _, r in losses])
    else:
        axes[1].plot(*_series(history, "lr"), marker=".")
    axes[1].set(title="learning rate", xlabel="epoch")
    for axis, (name,) in zip(axes[2:], panels, strict=True):
        axis.plot(*_series(history, name), marker=".")
        axis.set(title=name, xlabel="epoch")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=100)


def _series(history: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    """Epochs done and the values there, where the record has one."""
    found = [(record["epoch"] + 1, record[name]) for record in history if record.get(name) is not None]
    return [epoch for epoch, _ in found], [value for _, value in found]
