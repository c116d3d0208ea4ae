"""``carkp compare`` as a function: open two sides, walk both over the same images, say what differs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from carkp_core import derive
from carkp_core.compare.floats import FloatComparison, FloatFindings, LoneLayers
from carkp_core.compare.integers import IntegerComparison, IntegerFindings
from carkp_core.compare.samples import Samples, file_samples, validation_samples
from carkp_core.compare.sides import SIDES, Side, float_side, graph_side, network_side, program_side
from carkp_core.errors import ConfigError
from carkp_core.progress import progress
from carkp_core.session import Session
from carkp_core.stages import STAGES, TRAINERS

Say = Callable[[str], None]

#: Validation samples, when neither images nor a number are given.
DEFAULT_SAMPLES = 8
#: A batch holds at most this many elements of all tensors of one side, and this many images.
BATCH_ELEMENTS, BATCH_IMAGES = 1 << 25, 16


@frozen(eq=False)
class Comparison:
    """Two sides compared on ``images`` images. ``only_a`` and ``only_b`` are tensors that the other does not have."""

    a: str
    b: str
    images: int
    findings: IntegerFindings | FloatFindings
    #: Both sides are integer models and no ONNX file, so that every difference is a defect.
    exact: bool = False
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    #: Why the program was compiled first; empty when there is none, or the one on disk was current.
    compiled_because: str = ""
    #: What a reader should know.
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """False when two integer models differ."""
        return not (self.exact and isinstance(self.findings, IntegerFindings) and self.findings.differing)

    def to_json(self) -> dict[str, Any]:
        """The fixed machine-readable form."""
        return {
            "a": self.a,
            "b": self.b,
            "kind": "integer" if isinstance(self.findings, IntegerFindings) else "float",
            "ok": self.ok,
            "images": self.images,
            **self.findings.to_json(),
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "compiled_because": self.compiled_because,
            "notes": list(self.notes),
        }


def compare_session(
    session: Session,
    names: tuple[str, str],
    images: Sequence[Path] = (),
    num_samples: int | None = None,
    say: Say = lambda _: None,
) -> Comparison:
    """Compare two forms of a config's model.

    Parameters
    ----------
    session:
        The opened config.
    names:
        Two of ``sides.SIDES``, or paths of QDQ ONNX files.
    images:
        Image files and folders; by default the first validation samples.
    num_samples:
        At most this many images; by default all of ``images``, or 8 validation samples.
    say:
        Told when a program has to be compiled first, and of images that cannot be read.

    Raises
    ------
    ConfigError
        For an unknown side, or two that cannot be compared.
    CheckpointError, BackendError, DataError
        When a stage was not run yet, the program cannot be compiled, or an image cannot be read.
    """
    for name in names:
        require_side(name)
    if set(names) == {"float"}:
        raise ConfigError("the float network says something only beside an integer model", seen="float float")
    a = open_side(session, names[0], say)
    b = a if names[0] == names[1] else open_side(session, names[1], say)
    _require_common(a, b)
    if images:
        samples = file_samples(session, images, a.inputs, num_samples, say)
    else:
        stage = next((name for name in names if name in STAGES), "int_infer")
        samples = validation_samples(session, stage, a.inputs, num_samples or DEFAULT_SAMPLES)
    return compare_sides(session, a, b, samples)


def compare_sides(session: Session, a: Side, b: Side, samples: Samples) -> Comparison:
    """Compare two opened sides, at most one of them float."""
    common = _require_common(a, b)
    comparison: IntegerComparison | FloatComparison
    if "float" in (a.kind, b.kind):
        reference, side = (a, b) if a.kind == "float" else (b, a)
        backend = session.context.backend_or_none()
        lone = None if side.graph is None else LoneLayers(side.graph, reference.tensors, backend)
        comparison = FloatComparison(reference, side, common, lone)
    else:
        reference, side = a, b
        comparison = IntegerComparison(a, b, common)
    taken = 0
    with progress("compare", samples.count) as advance:
        for names, inputs in samples.batches(_batch_size(a, b)):
            left = reference.walk(inputs)
            comparison.take(names, left, left if side is reference else side.walk(inputs))
            taken += len(names)
            advance(len(names))
    return Comparison(
        a.name,
        b.name,
        taken,
        comparison.findings(),
        exact=a.kind == b.kind == "integer",
        only_a=_missing(a, b),
        only_b=_missing(b, a),
        compiled_because=a.compiled_because or b.compiled_because,
        notes=tuple(dict.fromkeys((*a.notes, *b.notes))),
    )


def require_side(name: str) -> str:
    """The name, once it is a side's or an existing ONNX file's."""
    path = Path(name)
    is_onnx = path.suffix.lower() == ".onnx"
    if name in SIDES or (is_onnx and path.is_file()):
        return name
    if is_onnx:
        raise ConfigError("there is no such ONNX file", where=name, remedy="run `carkp export-onnx --stage int_infer`")
    close = difflib.get_close_matches(name, SIDES, 1, 0.5)
    raise ConfigError(
        f"there is nothing to compare that is called {name!r}",
        allowed=f"{', '.join(SIDES)}, or the path of an .onnx file",
        remedy=f"did you mean {close[0]!r}?" if close else None,
    )


def open_side(session: Session, name: str, say: Say = lambda _: None) -> Side:
    """Open a side by its name.

    Raises
    ------
    CheckpointError, BackendError, ConfigError
        When its stage was not run yet, is not in the config, or its program cannot be compiled.
    """
    if name in STAGES and derive.predictor_node(session.config, name) is None:
        raise ConfigError(
            f"the config has no stage {name!r}",
            where=str(session.context.config_path),
            remedy=f"assign {TRAINERS[name][0]} in it, or compare other forms",
        )
    if name == "float":
        return float_side(session)
    if name in ("calibration", "qat"):
        return network_side(session, name)
    if name == "int_infer":
        return graph_side(session)
    if name == "hbm":
        return program_side(session, say)
    from carkp_core.compare.onnx_side import onnx_side

    return onnx_side(session, Path(name))


def _require_common(a: Side, b: Side) -> list[str]:
    """The tensors of both, in execution order."""
    common = [name for name in a.tensors if name in b.tensors]
    if not any(a.tensors[name].op != "input" for name in common):
        raise ConfigError(
            f"{a.name} and {b.name} have no layer in common",
            seen=f"{_some(a.tensors)} and {_some(b.tensors)}",
            remedy="compare forms of one model; an ONNX file has to be carkp's own: `carkp export-onnx`",
        )
    return common


def _missing(one: Side, other: Side) -> tuple[str, ...]:
    """Layers that one side has and the other has not; constants are no layers."""
    return tuple(name for name, kind in one.tensors.items() if name not in other.tensors and kind.op != "constant")


def _batch_size(a: Side, b: Side) -> int:
    graph = a.graph or b.graph
    if graph is None:
        return 1
    elements = sum(math.prod(kind.shape) for kind in graph.types().values())
    return max(1, min(BATCH_IMAGES, BATCH_ELEMENTS // elements))


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (", ..." if len(listed) > 4 else "") if listed else "nothing"
