"""Tallies: what was skipped, how often, why, and a few examples of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen
from rich.table import Table

#: How many examples of a reason are kept.
MAX_EXAMPLES = 3

#: Every reason for which the readers, the cropper and the packer leave something out, and what it means.
REASONS = {
    "missing_split": "a split's folder or annotation file does not exist",
    "unknown_split": "a folder with sequences whose name is no split's",
    "empty_folder": "a split without sequences, or a sequence without images and labels",
    "other_file": "a file that is neither image nor label file",
    "missing_labels": "an image without a label file",
    "missing_image": "a label file, box file or annotation without its image",
    "unreadable_image": "an image that does not decode",
    "unreadable_labels": "a label file that cannot be read",
    "empty_labels": "a label file without any usable point",
    "malformed_line": "a label line that is not x,y,keypoint_id,car_id,visibility",
    "duplicate_point": "a keypoint labelled twice for one car; the first counts",
    "unreadable_boxes": "a file of bb/ that cannot be read; the hulls of the points are used",
    "malformed_box": "a line of bb/ that is not x1,y1,x2,y2[,car_id]; the hull of the points is used",
    "unmatched_box": "a box of bb/ that belongs to no labelled car",
    "too_few_points": "a car with fewer than 3 valid points",
    "too_small": "a car whose crop has a side under 24 px",
    "malformed_annotation": "an annotation that is not a list of K rows [x, y, valid]",
}


@frozen
class Skipped:
    """How often one reason occurred, and its first examples."""

    count: int = 0
    examples: tuple[str, ...] = ()


@frozen
class Tally:
    """Counts by reason. Tallies add up; a reason's examples are the first ones met."""

    reasons: Mapping[str, Skipped] = field(factory=dict)

    @classmethod
    def of(cls, problems: Iterable[tuple[str, str]]) -> Tally:
        """Count ``(reason, example)`` pairs."""
        counts: dict[str, int] = {}
        examples: dict[str, list[str]] = {}
        for reason, example in problems:
            assert reason in REASONS, reason
            counts[reason] = counts.get(reason, 0) + 1
            kept = examples.setdefault(reason, [])
            if len(kept) < MAX_EXAMPLES:
                kept.append(example)
        return cls({reason: Skipped(count, tuple(examples[reason])) for reason, count in counts.items()})

    @classmethod
    def total(cls, tallies: Iterable[Tally]) -> Tally:
        """Add up."""
        counts: dict[str, int] = {}
        examples: dict[str, tuple[str, ...]] = {}
        for tally in tallies:
            for reason, skipped in tally.reasons.items():
                counts[reason] = counts.get(reason, 0) + skipped.count
                examples[reason] = (examples.get(reason, ()) + skipped.examples)[:MAX_EXAMPLES]
        return cls({reason: Skipped(count, examples[reason]) for reason, count in counts.items()})

    def __add__(self, other: Tally) -> Tally:
        return Tally.total((self, other))

    def __len__(self) -> int:
        return sum(skipped.count for skipped in self.reasons.values())

    def count(self, reason: str) -> int:
        """How often ``reason`` occurred."""
        return self.reasons[reason].count if reason in self.reasons else 0

    def counts(self) -> dict[str, int]:
        """Count by reason, in the order of `REASONS`."""
        return {reason: self.count(reason) for reason in REASONS if self.count(reason)}

    def to_json(self) -> dict[str, Any]:
        """Plain values, read back by `Tally.from_json`."""
        return {r: {"count": s.count, "examples": list(s.examples)} for r, s in self.reasons.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        """Read what `to_json` wrote; unknown reasons raise ValueError."""
        unknown = set(value) - set(REASONS)
        if unknown:
            raise ValueError(f"unknown reasons: {sorted(unknown)}")
        return cls({r: Skipped(int(s["count"]), tuple(map(str, s["examples"]))) for r, s in value.items()})

    def table(self, title: str = "Skipped") -> Table:
        """A table by reason with examples, for the terminal."""
        table = Table(title=title, title_justify="left", show_lines=False)
        table.add_column("reason")
        table.add_column("count", justify="right")
        table.add_column("meaning", ratio=1)
        table.add_column("for example", ratio=1, overflow="fold")
        for reason, count in self.counts().items():
            table.add_row(reason, str(count), REASONS[reason], "\n".join(self.reasons[reason].examples))
        return table
