"""The cropper's journal: which frames are done, so that an interrupted run goes on where it stopped.

A journal is a text file of JSON lines under ``<out>/.carkp``: a header that names the rules, then one line for each
finished frame, appended as work is done. A frame counts as done while its source files and its crops are unchanged
(by size and, for sources, time). A line cut short by a crash is ignored, so at worst a few frames are done again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from carkp_carfusion.data.files import make_folder, write_bytes
from carkp_carfusion.data.tally import Tally

Rows = list[list[float]]


@frozen
class CropRecord:
    """One written crop: its path relative to the output folder, its size on disk and its K rows [x, y, valid]."""

    path: str
    file_bytes: int
    rows: Rows


@frozen
class FrameRecord:
    """What became of one frame. ``sources`` is the state of its files when it was read."""

    key: str
    sources: tuple[tuple[int, int], ...]
    crops: tuple[CropRecord, ...]
    tally: Tally

    def to_line(self) -> str:
        """One JSON line."""
        crops = [[crop.path, crop.file_bytes, crop.rows] for crop in self.crops]
        value = {"key": self.key, "sources": self.sources, "crops": crops, "skipped": self.tally.to_json()}
        return json.dumps(value, separators=(",", ":")) + "\n"

    @classmethod
    def from_line(cls, line: str) -> FrameRecord:
        """Read `to_line`; anything else raises ValueError, KeyError or TypeError."""
        value = json.loads(line)
        crops = tuple(CropRecord(str(path), int(size), rows) for path, size, rows in value["crops"])
        sources = tuple((int(size), int(time)) for size, time in value["sources"])
        return cls(str(value["key"]), sources, crops, Tally.from_json(value["skipped"]))


def source_state(paths: Iterable[Path | None]) -> tuple[tuple[int, int], ...]:
    """(size, modification time in ns) of each file; (-1, -1) for one that is missing or None."""
    state = []
    for path in paths:
        found = (-1, -1)
        if path is not None:
            with contextlib.suppress(OSError):
                stat = path.stat()
                found = (stat.st_size, stat.st_mtime_ns)
        state.append(found)
    return tuple(state)


def crops_intact(record: FrameRecord, out_dir: Path) -> bool:
    """Whether every crop that the record names is there with its full size."""
    try:
        return all((out_dir / crop.path).stat().st_size == crop.file_bytes for crop in record.crops)
    except OSError:
        return False


class Journal:
    """A journal file; ``header`` names everything the crops depend on beside the source files."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self._header = json.dumps(header, sort_keys=True) + "\n"

    def read(self) -> dict[str, FrameRecord]:
        """The finished frames by key; empty when the journal is missing or was made by other rules."""
        try:
            with self.path.open(encoding="utf-8") as lines:
                if next(lines, None) != self._header:
                    return {}
                records = [record for line in lines if (record := _parse(line)) is not None]
        except OSError:
            return {}
        return {record.key: record for record in records}

    def start(self, records: Iterable[FrameRecord]) -> None:
        """Replace the journal by the header and these records."""
        make_folder(self.path.parent)
        text = self._header + "".join(record.to_line() for record in records)
        write_bytes(self.path, text.encode())

    def append(self, records: Iterable[FrameRecord]) -> None:
        """Add finished frames."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(record.to_line() for record in records))


def _parse(line: str) -> FrameRecord | None:
    try:
        return FrameRecord.from_line(line)
    except (ValueError, KeyError, TypeError):
        return None
