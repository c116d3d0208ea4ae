"""Errors that a user may cause, each saying where, what was seen, what is allowed and what to do.

::

    CarkpError                exit status 2, printed without a traceback
    ├── ConfigError           a config file, an override, a component's arguments
    ├── DataError             raw, cropped or packed data; images
    ├── CheckpointError       missing, foreign or damaged checkpoints
    ├── PluginError           plugins that clash, fail to import or break a hook's contract
    ├── QuantizationError     tracing, calibration, conversion to the integer IR
    ├── GraphError            an integer graph that breaks a rule of the IR
    └── BackendError          an unknown march, a refused graph, an unreadable program

Anything else that escapes a command is a defect of carkp's (or a plugin's) and keeps its traceback.
"""

from __future__ import annotations


class CarkpError(Exception):
    """A problem in the user's input.

    Parameters
    ----------
    message:
        What is wrong, in one sentence.
    where:
        The place: a file and line, a key path, a layer's module path.
    seen, allowed, remedy:
        The value met, what would have been accepted, and what to do now.
    """

    exit_status = 2

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        seen: str | None = None,
        allowed: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.seen = seen
        self.allowed = allowed
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        details = (("seen", self.seen), ("allowed", self.allowed), ("do", self.remedy))
        return "\n".join([head, *(f"  {label}: {text}" for label, text in details if text)])


class ConfigError(CarkpError):
    """A config file, an override or a component's arguments are wrong."""


class DataError(CarkpError):
    """Raw, cropped or packed data cannot be used."""


class CheckpointError(CarkpError):
    """A checkpoint is missing, belongs to another network or cannot be read."""


class PluginError(CarkpError):
    """A plugin clashes with another, fails to import or breaks a hook's contract."""


class QuantizationError(CarkpError):
    """Tracing, calibration or conversion to the integer IR failed."""


class GraphError(CarkpError):
    """An integer graph breaks a rule of the IR."""


class BackendError(CarkpError):
    """A march is unknown, a graph is refused or a compiled program cannot be read."""
