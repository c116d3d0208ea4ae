"""Packing: crops -> ``<target>/<split>_lmdb`` (``carkp carfusion-packer``).

The JPEG files' own bytes are stored, never pixels. Processes check that each image decodes; one writes. The data set
is built in ``<target>/.<split>_lmdb.tmp``, read back, and moved into place by a single rename, so a reader sees the
old data set or the new one. An interrupted run leaves only that temporary folder, which the next run starts afresh.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import lmdb
from attrs import frozen

from carkp_carfusion.data.crop import in_batches
from carkp_carfusion.data.cropped import Annotation, read_annotations, read_skeleton
from carkp_carfusion.data.files import make_folder, only_writer
from carkp_carfusion.data.images import decode_image
from carkp_carfusion.data.lmdb_store import PackStore
from carkp_carfusion.data.records import (
    HEADER_KEY,
    PackedSample,
    PackHeader,
    encode_sample,
    sample_key,
)
from carkp_carfusion.data.tally import Tally
from carkp_core.errors import DataError
from carkp_core.progress import progress

#: Samples handed to each process between two commits.
SAMPLES_PER_ROUND = 64

#: Address space reserved at first; it doubles whenever it is full.
INITIAL_MAP_BYTES = 1 << 28


@frozen
class PackReport:
    """The outcome of `pack_split`."""

    path: Path
    split: str
    written: int
    file_bytes: int
    skipped: Tally

    def to_json(self) -> dict[str, Any]:
        """The command's JSON result."""
        return {
            "path": str(self.path),
            "split": self.split,
            "written": self.written,
            "file_bytes": self.file_bytes,
            "skipped": self.skipped.counts(),
            "examples": {reason: list(skipped.examples) for reason, skipped in self.skipped.reasons.items()},
        }


def pack_split(
    src_dir: Path,
    target_dir: Path,
    split: str,
    num_workers: int = 1,
    initial_map_bytes: int = INITIAL_MAP_BYTES,
) -> PackReport:
    """Pack one split of a cropped data set.

    With no usable sample nothing is written and an earlier pack is left alone; the report then says 0 written.

    Raises
    ------
    DataError
        If the split doesn't exist, or another process packs it into the same folder.
    """
    skeleton = read_skeleton(src_dir)
    annotations, tally = read_annotations(src_dir, split, len(skeleton))
    final = target_dir / f"{split}_lmdb"
    building = target_dir / f".{split}_lmdb.tmp"
    with only_writer(building):
        data_file = building / "data.mdb"
        data_file.unlink(missing_ok=True)
        with _Writer(building, initial_map_bytes) as writer:
            problems = _write_samples(writer, src_dir, split, annotations, num_workers)
            header = PackHeader(writer.count, split, skeleton)
            writer.put([(HEADER_KEY, header.to_bytes())])
        report = PackReport(final, split, header.count, data_file.stat().st_size, tally + Tally.of(problems))
        if header.count:
            _read_back(building, header)
            PackStore(final).close()
            make_folder(final)
            os.replace(data_file, final / "data.mdb")
    shutil.rmtree(building, ignore_errors=True)
    return report


def _write_samples(
    writer: _Writer, src_dir: Path, split: str, annotations: Sequence[Annotation], num_workers: int
) -> list[tuple[str, str]]:
    """Write all usable samples in order; return the problems."""
    problems: list[tuple[str, str]] = []
    workers = max(1, num_workers)
    with (
        joblib.Parallel(n_jobs=workers, batch_size=SAMPLES_PER_ROUND // 4) as parallel,
        progress(f"packing {split}", len(annotations)) as advance,
    ):
        for batch in in_batches(annotations, SAMPLES_PER_ROUND * workers):
            results = parallel(joblib.delayed(load_sample)(src_dir, annotation) for annotation in batch)
            values = [value for value, _ in results if value is not None]
            problems += [problem for _, problem in results if problem is not None]
            writer.put([(sample_key(writer.count + i), value) for i, value in enumerate(values)])
            writer.count += len(values)
            advance(len(batch))
    return problems


def load_sample(src_dir: Path, annotation: Annotation) -> tuple[bytes | None, tuple[str, str] | None]:
    """The record of one annotated crop, or why there is none."""
    try:
        data = (src_dir / annotation.path).read_bytes()
    except OSError:
        return None, ("missing_image", annotation.path)
    if decode_image(data) is None:
        return None, ("unreadable_image", annotation.path)
    return encode_sample(PackedSample(annotation.path, annotation.rows, data)), None


class _Writer:
    """An LMDB under construction whose map grows as needed; ``count`` is kept by its user."""

    def __init__(self, folder: Path, map_bytes: int) -> None:
        self.count = 0
        # One process writes and nobody reads yet: no lock file, and one sync at the end instead of one a commit.
        self._environment = lmdb.open(str(folder), map_size=map_bytes, lock=False, sync=False, meminit=False)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.sync(True)
        self._environment.close()

    def put(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Write the items in one transaction, with twice the room as often as they don't fit."""
        while not self._fits(items):
            self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def _fits(self, items: Sequence[tuple[bytes, bytes]]) -> bool:
        try:
            with self._environment.begin(write=True) as transaction:
                for key, value in items:
                    transaction.put(key, value)
        except lmdb.MapFullError:
            return False
        except lmdb.Error as error:
            raise DataError("the data set cannot be written", seen=str(error), remedy="free space") from error
        return True


def _read_back(folder: Path, header: PackHeader) -> None:
    """Reopen what was written and parse every record."""
    store = PackStore(folder)
    found = store.header()
    assert found == header, "the header that was read back differs"
    try:
        for index in range(header.count):
            store.sample(index)
    finally:
        store.close()
