"""The sample's digests, from TOSA's reference model. In the environment of ``tosa-tools``.

``python -m conformance.sample_digests`` exits 1 when ``sample.json`` says something else; ``--write`` writes it anew.
"""

# ruff: noqa: T201 - a script prints what it did

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from conformance import reference_model
from conformance.program import Program
from conformance.sample import DIGESTS, committed_digests, program_digest, sample_programs, values_digest


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write sample.json anew")
    options = parser.parse_args(arguments)
    found = {program.name: digests(program) for program in sample_programs()}
    if options.write:
        lines = (f" {json.dumps(name)}: {json.dumps(both)}" for name, both in found.items())
        DIGESTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    committed = committed_digests()
    stale = sorted(name for name in found.keys() | committed.keys() if found.get(name) != committed.get(name))
    print(f"sample: {len(found)} programs, {len(stale)} not as committed {' '.join(stale)}")
    sys.exit(1 if stale else 0)


def digests(program: Program) -> dict[str, str]:
    """Of a program, and of what the reference model computes for it."""
    return {"program": program_digest(program), "expected": values_digest(reference_model.run(program).expected)}


if __name__ == "__main__":
    main()
