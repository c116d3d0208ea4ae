"""Writing files so that a name never holds half a file, and saying plainly why when that fails."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from carkp_core.errors import DataError

try:
    import fcntl
except ImportError:  # a platform without advisory locks
    fcntl = None  # type: ignore[assignment]


def make_folder(path: Path) -> Path:
    """Make a folder and those above it.

    Raises
    ------
    DataError
        If that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside it and rename it.

    Raises
    ------
    DataError
        If that is not possible: a full disk, missing rights.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise _not_written(path, error) from error


def write_compact_json(path: Path, value: object) -> None:
    """Write ``value`` as JSON on one line; the folder is made."""
    make_folder(path.parent)
    write_bytes(path, json.dumps(value, separators=(",", ":")).encode())


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for one writing process; the lock dies with the process.

    Raises
    ------
    DataError
        If another process is writing there.
    """
    make_folder(folder)
    with (folder / ".lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise DataError(
                    "another process is writing to this folder",
                    where=str(folder),
                    remedy="wait for it to finish, or choose another output folder",
                ) from error
        yield


def _not_written(path: Path, error: OSError) -> DataError:
    return DataError(
        "cannot be written",
        where=str(path),
        seen=error.strerror or str(error),
        remedy="free space or fix the rights of the folder, then run the same command again",
    )
