"""What a program says about itself: the model section of an ``.hbm``, as JSON with checked fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from attrs import frozen

from carkp_bpu import __version__
from carkp_bpu.march import MARCHES
from carkp_core.errors import BackendError

#: Memories beyond these are taken for damage: a simulator models every byte.
MAX_SRAM_BYTES = 256 << 20
MAX_DDR_BYTES = 8 << 30
#: Properties of a program that a reader has to know about.
FEATURES = ("int16", "partial_pool", "rings")


@frozen
class Port:
    """A network input or output: its type, and where it lies in DDR (dense HWC).

    ``shape`` has N = 1. ``preprocessing`` says how an image becomes this input; ``layout`` is that of the bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    ddr: int
    preprocessing: str = ""
    layout: str = "NHWC"


@frozen
class Description:
    """The model section."""

    compiler: str
    name: str
    march: str
    opt: str
    input_source: str
    features: tuple[str, ...]
    sram_bytes: int
    #: DDR addresses below ``constant_bytes`` hold the constants section, those up to ``ddr_bytes`` one frame's data.
    constant_bytes: int
    ddr_bytes: int
    graph_digest: str
    options_digest: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    #: What the compiler planned, for comparison with what a simulator counts.
    plan: Mapping[str, int]


def encode_description(description: Description) -> bytes:
    """Canonical JSON."""
    return json.dumps(attrs.asdict(description), sort_keys=True, separators=(",", ":")).encode()


def decode_description(data: bytes) -> Description:
    """The description of canonical JSON. Raises BackendError when a field is missing or of another type."""
    try:
        raw = json.loads(data)
        made = Description(
            **{name: _FIELDS[name](raw.pop(name)) for name in attrs.fields_dict(Description)},
        )
        if raw:
            raise ValueError(f"unknown fields {', '.join(sorted(raw))}")
        _check(made)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BackendError(
            "the program's description cannot be read",
            seen=f"{type(error).__name__}: {error}",
            remedy="compile it again",
        ) from error
    unknown = sorted(set(made.features) - set(FEATURES))
    if unknown:
        raise BackendError(
            "the program needs features that this carkp-bpu lacks",
            seen=f"{', '.join(unknown)}, in a program by {made.compiler}",
            allowed=f"{', '.join(FEATURES)} in carkp-bpu {__version__}",
            remedy="update carkp-bpu",
        )
    _check_march(made)
    return made


def _check_march(description: Description) -> None:
    known = [march.name for march in MARCHES]
    if description.march not in known:
        raise BackendError(
            "the program is for a march that this carkp-bpu does not know",
            seen=f"{description.march!r}, in a program by {description.compiler}",
            allowed=f"{', '.join(known)} in carkp-bpu {__version__}",
            remedy="update carkp-bpu, or compile the model for one of these",
        )


def _check(description: Description) -> None:
    if (
        not 0 <= description.constant_bytes <= description.ddr_bytes < MAX_DDR_BYTES
        or not 0 < description.sram_bytes <= MAX_SRAM_BYTES
    ):
        raise ValueError("sizes of the memories")
    for port in (*description.inputs, *description.outputs):
        if port.dtype not in ("int8", "int16", "int32") or not port.shape or min(port.shape) < 1:
            raise ValueError(f"type of {port.name!r}")
        if not 0 <= port.ddr <= description.ddr_bytes:
            raise ValueError(f"address of {port.name!r}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _port(value: Any) -> Port:
    return Port(
        name=_text(value["name"]),
        shape=tuple(_whole(size) for size in value["shape"]),
        dtype=_text(value["dtype"]),
        scale=float(value["scale"]),
        ddr=_whole(value["ddr"]),
        preprocessing=_text(value["preprocessing"]),
        layout=_text(value["layout"]),
    )


def _ports(value: Any) -> tuple[Port, ...]:
    return tuple(_port(item) for item in value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in value)


def _counts(value: Any) -> dict[str, int]:
    return {_text(key): _whole(item) for key, item in value.items()}


_FIELDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("compiler", "name", "march", "opt", "input_source", "graph_digest", "options_digest"), _text),
    **dict.fromkeys(("sram_bytes", "constant_bytes", "ddr_bytes"), _whole),
    "features": _texts,
    "inputs": _ports,
    "outputs": _ports,
    "plan": _counts,
}
