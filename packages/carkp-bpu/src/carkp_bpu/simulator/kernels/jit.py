"""The one way kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile on first use, without the GIL, and keep the machine code on disk.

    The code is kept beside this package, or in the user's cache folder when that is not writable
    (``NUMBA_CACHE_DIR`` overrides both). Where nothing is writable it is compiled anew in each process.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        compiled: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder to write to
        compiled = numba.njit(**options)(function)
    return compiled  # type: ignore[no-any-return]


def inlined(function: F) -> F:
    """A helper of kernels, merged into each of them by the compiler."""
    return numba.njit(nogil=True, error_model="numpy", inline="always")(function)  # type: ignore[no-any-return]
