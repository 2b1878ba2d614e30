"""How kernels are compiled: once per machine, and from then on loaded.

Numba keeps compiled code beside the source, or, where that folder cannot be written (a read-only installation), in the user's cache folder;
the environment variable NUMBA_CACHE_DIR names another. Where none can be written, kernels work all the same, compiled by each process.

Numba takes compiled code for up to date where the file of the kernel is the one that was compiled. But a kernel holds the code of those
that it calls, from other files too, and after a change in one of them would run what was, with arguments that mean something else. So here
it is up to date only if no file of this folder has changed.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from patchflow.notices import say

_told: list[str] = []


def kernel(function: Callable[..., Any] | None = None, *, fastmath: set[str] | None = None) -> Any:
    """Compile a function: it releases the interpreter lock, divides as numpy does, and is cached.

    Args:
        function: the loops; as a decorator `@kernel`, or `@kernel(fastmath=...)`.
        fastmath: what LLVM may change about float arithmetic, such as {"contract"} for fused multiply-adds; None for nothing.
    """
    if function is None:
        return lambda function: kernel(function, fastmath=fastmath)
    # A check for division by zero would keep loops from vectorising.
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath or False}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError as error:  # no folder for compiled code
        if not _told:
            _told.append("once")
            say(f"compiled kernels cannot be kept, so each process compiles them: set NUMBA_CACHE_DIR to a folder of yours ({error})")
        return numba.njit(**options)(function)
    index: Any = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(index, "_source_stamp"):  # Numba has no public way to say what else compiled code depends on
        index._source_stamp = (index._source_stamp, _digest())
    return compiled


def inlined(function: Callable[..., Any]) -> Any:
    """A function that becomes part of the kernels that call it."""
    return numba.njit(inline="always", error_model="numpy")(function)


@cache
def _digest() -> str:
    """Tells the kernels of this version from those of any other."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
