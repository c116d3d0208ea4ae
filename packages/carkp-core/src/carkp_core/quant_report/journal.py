"""The journal of a report: one line of JSON for each batch that was measured, so that a stopped run can go on.

The first line holds the key: a digest of all that the numbers depend on. A journal with another key is started anew. A
last line that was cut off is dropped. What is read back equals what was measured to the last bit, so a run that went on
gives the very report of one that never stopped.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carkp_core.errors import DataError
from carkp_core.quant.sensitivity.histogram import Histogram
from carkp_core.quant.sensitivity.measurement import Answer, BatchSums, LayerSums

FORMAT = 1


class Journal:
    """A journal file, open for more batches.

    Parameters
    ----------
    path:
        The file; made if there is none.
    key:
        What the numbers depend on, as plain values.
    fresh:
        Drop what is there.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], fresh: bool = False) -> None:
        self._path = path
        self._head = {"format": FORMAT, "key": digest(key)}
        #: Why a journal that was there is not gone on with; empty otherwise.
        self.discarded = ""
        kept = [] if fresh else self._read()
        self.batches = [batch_of(plain) for plain in kept]
        self._write([self._head, *kept])

    def add(self, batch: BatchSums) -> None:
        """Append a batch; it is on disk when this returns.

        Raises
        ------
        DataError
            The disk is full, or the file cannot be written.
        """
        with self._explained(), open(self._path, "a", encoding="utf-8") as file:
            file.write(_line(plain_of(batch)))
            file.flush()
            os.fsync(file.fileno())
        self.batches.append(batch)

    def _read(self) -> list[dict[str, Any]]:
        """The batches of an earlier run, if it was of the same key."""
        if not self._path.is_file():
            return []
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        parsed = list(itertools.takewhile(lambda line: line is not None, map(_parsed, lines)))
        if not parsed or parsed[0] != self._head:
            self.discarded = "it was of another model, other data or another version"
            return []
        return parsed[1:]

    def _write(self, lines: list[dict[str, Any]]) -> None:
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with self._explained():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text("".join(map(_line, lines)), encoding="utf-8")
            temporary.replace(self._path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                "the journal cannot be written",
                where=str(self._path),
                seen=str(error),
                remedy="free some disk space, or choose another folder with --out",
            ) from error


def _line(plain: Mapping[str, Any]) -> str:
    return json.dumps(plain, separators=(",", ":")) + "\n"


def _parsed(line: str) -> Any:
    """A line's value, None where it was cut off."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def digest(key: Mapping[str, Any]) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()


def plain_of(batch: BatchSums) -> dict[str, Any]:
    """A batch as JSON values. Python writes and reads floats exactly."""
    return {
        "samples": batch.samples,
        "signal": list(batch.signal),
        "in_float": _plain_answer(batch.in_float),
        "in_integers": _plain_answer(batch.in_integers),
        "layers": {name: _plain_layer(sums) for name, sums in batch.layers.items()},
    }


def batch_of(plain: Mapping[str, Any]) -> BatchSums:
    """The inverse of ``plain_of``."""
    return BatchSums(
        plain["samples"],
        tuple(plain["signal"]),
        _answer(plain["in_float"]),
        _answer(plain["in_integers"]),
        {name: _layer(sums) for name, sums in plain["layers"].items()},
    )


_NUMBERS = (
    "elements", "low", "high", "signal", "from_weights", "from_output", "alone", "accumulated", "clipped",
)  # fmt: skip


def _plain_layer(sums: LayerSums) -> dict[str, Any]:
    histogram = sums.histogram
    return {name: getattr(sums, name) for name in _NUMBERS} | {
        "channel_absmax": _packed(sums.channel_absmax),
        "histogram": [histogram.limit, _packed(histogram.counts), histogram.zeros],
        "slots": _packed(sums.slots),
        "only": _plain_answer(sums.only),
        "without": _plain_answer(sums.without),
    }


def _layer(plain: Mapping[str, Any]) -> LayerSums:
    limit, counts, zeros = plain["histogram"]
    return LayerSums(
        **{name: plain[name] for name in _NUMBERS},
        channel_absmax=_unpacked(plain["channel_absmax"]),
        histogram=Histogram(limit, _unpacked(counts), zeros),
        slots=_unpacked(plain["slots"]),
        only=_answer(plain["only"]),
        without=_answer(plain["without"]),
    )


def _plain_answer(answer: Answer) -> dict[str, Any]:
    states = [{key: _packed(value) for key, value in state.items()} for state in answer.states]
    return {"noise": list(answer.noise), "states": states}


def _answer(plain: Mapping[str, Any]) -> Answer:
    states = tuple({key: _unpacked(value) for key, value in state.items()} for state in plain["states"])
    return Answer(tuple(plain["noise"]), states)


def _packed(array: npt.NDArray[Any]) -> list[Any]:
    """Type, shape and compressed bytes: most counts are 0."""
    array = np.asarray(array)
    data = zlib.compress(np.ascontiguousarray(array).tobytes(), 6)
    return [array.dtype.str, list(array.shape), base64.b85encode(data).decode("ascii")]


def _unpacked(plain: Any) -> npt.NDArray[Any]:
    kind, shape, data = plain
    return np.frombuffer(zlib.decompress(base64.b85decode(data)), dtype=kind).reshape(shape).copy()
