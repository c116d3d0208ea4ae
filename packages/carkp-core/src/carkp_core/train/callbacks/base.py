"""When callbacks are called, from top to bottom in the order of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carkp_core.train.evaluation import Evaluated
    from carkp_core.train.processors import StepResult
    from carkp_core.train.state import Training


class Callback:
    """Does nothing at every place. Override what you need; ``training`` is the run's state."""

    def on_train_begin(self, training: Training) -> None:
        """Before the first step, or before the first after a resume."""

    def on_epoch_begin(self, training: Training) -> None:
        """Before an epoch's first step."""

    def on_step_begin(self, training: Training) -> None:
        """Before each step: learning rates are set here."""

    def on_gradients(self, training: Training) -> None:
        """All gradients of a step are there and the weights have not changed: clip or scale them here."""

    def on_step_end(self, training: Training, result: StepResult) -> None:
        """After each step."""

    def on_epoch_end(self, training: Training) -> None:
        """After an epoch's last step: validate here. A stage without epochs calls it once."""

    def on_checkpoint(self, training: Training) -> None:
        """The epoch is counted and its metrics are known: save here."""

    def on_stop(self, training: Training) -> None:
        """The run was asked to stop, at any place: save what a resume needs."""

    def on_train_end(self, training: Training) -> None:
        """After the last epoch. Not called when the run stopped early."""

    def on_evaluated(self, evaluated: Evaluated) -> None:
        """For callbacks of ``Validation`` and ``Predictor``: after each batch of an evaluation."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of this callback: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
