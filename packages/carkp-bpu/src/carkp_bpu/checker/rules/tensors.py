"""Rules of every tensor: form, rank, size, type."""

from __future__ import annotations

import math
from collections.abc import Callable

from carkp_bpu.checker.rule import Site, rule
from carkp_bpu.march.base import TensorLimits
from carkp_core.ir.graph import TensorType

BYTES = {"int8": 1, "int16": 2, "int32": 4, "float32": 4}

#: Operators that the vendors' runtimes execute on the CPU, by the last word of their name in torch or ONNX.
CPU_FUNCTIONS = frozenset(
    {
        "abs",
        "amax",
        "amin",
        "argmax",
        "argmin",
        "bmm",
        "ceil",
        "clamp_max",
        "clamp_min",
        "cumsum",
        "div",
        "einsum",
        "embedding",
        "exp",
        "floor",
        "gather",
        "grid_sample",
        "gridsample",
        "group_norm",
        "groupnorm",
        "gru",
        "index_select",
        "instance_norm",
        "instancenorm",
        "layer_norm",
        "layernorm",
        "log",
        "log_softmax",
        "logsoftmax",
        "lstm",
        "matmul",
        "max",
        "min",
        "neg",
        "normalize",
        "pow",
        "round",
        "sign",
        "softmax",
        "softplus",
        "sort",
        "sqrt",
        "sum",
        "topk",
        "where",
    }
)


def tensors_of(site: Site) -> tuple[tuple[str, TensorType], ...]:
    """The node's tensors with a word for each."""
    return (*((f"input {i}", t) for i, t in enumerate(site.inputs)), ("output", site.output))


def byte_count(type_: TensorType) -> int:
    """Bytes of one frame of a tensor, without alignment."""
    return math.prod(type_.shape) * BYTES[type_.dtype]


def runs_on_cpu(target: str) -> bool:
    """Whether a runtime's CPU library has the operator of a target such as ``torch.nn.functional.softmax``."""
    return target.replace(":", ".").rsplit(".", 1)[-1].strip("_").lower() in CPU_FUNCTIONS


@rule(
    "*",
    allowed="operators of the integer IR",
    remedy="move it behind the network (post-processing), or express it with supported operators",
)
def integer_form(site: Site) -> str | None:
    """An operator has an integer form."""
    return f"{site.op.target} has none" if site.op.kind == "opaque" else None


@rule("*", facts=("tensor.ranks",), allowed="{0} dimensions", remedy="reshape to four dimensions", otherwise="rejected")
def tensor_rank(site: Site) -> str | None:
    """The number of a tensor's dimensions, batch included, is within the march's range."""
    return _first(
        site, lambda t: f"{len(t.shape)} dimensions" if len(t.shape) not in _tensor(site).ranks.value else None
    )


@rule("*", facts=("tensor.batch",), allowed="at most {0}", remedy="run smaller batches", otherwise="rejected")
def tensor_batch(site: Site) -> str | None:
    """The batch is at most the march's limit."""
    return _first(site, lambda t: f"batch {t.shape[0]}" if t.shape[0] > _tensor(site).batch.value else None)


@rule("*", facts=("tensor.side",), allowed="at most {0}", remedy="split the tensor", otherwise="rejected")
def tensor_side(site: Site) -> str | None:
    """Each dimension behind the batch is at most the march's limit."""
    side = _tensor(site).side.value
    return _first(site, lambda t: f"shape {t.shape}" if max(t.shape[1:], default=1) > side else None)


@rule("*", facts=("tensor.tensor_bytes",), allowed="at most {0} bytes", remedy="split the tensor", otherwise="rejected")
def tensor_bytes(site: Site) -> str | None:
    """A tensor's bytes are at most the march's limit."""
    limit = _tensor(site).tensor_bytes.value
    return _first(site, lambda t: f"{byte_count(t)} bytes" if byte_count(t) > limit else None)


@rule(
    "*",
    allowed="int32 at the tail of the graph, from a convolution",
    remedy="give the node an int8 or int16 output, or make it a graph output that nothing reads",
    otherwise="rejected",
)
def int32_only_at_tail(site: Site) -> str | None:
    """Only a convolution that ends the graph gives int32; nothing reads int32."""
    if "int32" in [t.dtype for t, off in zip(site.inputs, site.off_npu, strict=True) if not off]:
        return "an int32 input"
    if site.output.dtype == "int32" and not (site.tail and site.op.kind == "conv2d"):
        return f"an int32 output of {site.op.kind}" + ("" if site.tail else " inside the graph")
    return None


@rule(
    "*",
    facts=("tensor.dtypes",),
    allowed="{0}",
    remedy="quantize the activation to one of the march's types",
    otherwise="rejected",
)
def activation_type(site: Site) -> str | None:
    """An activation's type is one that the march computes with."""
    if site.op.kind in ("opaque", "constant"):
        return None
    known = (*_tensor(site).dtypes.value, "int32")
    inputs = [t.dtype for t, off in zip(site.inputs, site.off_npu, strict=True) if not off]
    wrong = [dtype for dtype in (*inputs, site.output.dtype) if dtype not in known]
    return wrong[0] if wrong else None


def _tensor(site: Site) -> TensorLimits:
    return site.march.tensor


def _first(site: Site, seen: Callable[[TensorType], str | None]) -> str | None:
    for word, type_ in tensors_of(site):
        found = seen(type_)
        if found:
            return f"{word}: {found}"
    return None
