"""carkp's core: plugins, configs, the trainer loop, quantization passes and the integer IR."""

__version__ = "0.1.0"

from carkp_core.hookspecs import hookimpl

__all__ = ["__version__", "hookimpl"]
