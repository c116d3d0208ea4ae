"""Core's operators, as records: what ``carkp_core.plugin`` offers through ``carkp_operators``."""

from __future__ import annotations

from carkp_core.operator import Operator

_OPS = "carkp_core.quant.ops"

_NAMED = {
    "convolution": ("conv2d",),
    "conv_transpose": ("conv_transpose2d",),
    "linear": ("linear",),
    "batch_norm": ("batch_norm",),
    "elementwise": ("add", "sub", "rsub", "mul", "div", "rdiv", "addcmul"),
    "concat": ("concat", "stack"),
    "pooling": ("max_pool", "avg_pool"),
    "adaptive": ("adaptive_avg", "adaptive_max"),
    "reduction": ("mean", "sum", "amax", "max"),
    "lines": ("conv1d", "max_pool1d", "avg_pool1d", "adaptive_avg1d", "adaptive_max1d"),
    "resize": ("resize", "expand"),
    "move": (
        "identity", "cast", "reshape", "split", "unbind", "getitem", "narrow", "select",
    ),
    "permute": ("permute", "transpose", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
    "channels": ("index_select", "indexed"),
    "padding": ("pad",),
    "table": ("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "prelu", "pow", "scalar_functions"),
}  # fmt: skip

#: ``scalar_functions`` loads a tuple of definitions, one for each function that becomes a table.
OPERATORS: tuple[Operator, ...] = tuple(
    Operator(name, f"{_OPS}.{module}:{name.upper()}") for module, names in _NAMED.items() for name in names
)
