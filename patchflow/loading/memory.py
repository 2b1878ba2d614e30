"""From a memory budget to a number of batches in flight."""

import re

from patchflow.errors import ArgumentError, MemoryBudgetError
from patchflow.loading.batch import SPARE
from patchflow.notices import size

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(value: int | str) -> int:
    """Bytes from an int, or from text such as "2GiB", "512 MiB" or "1.5 GB"; raises `ArgumentError` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]+)\s*", value) if isinstance(value, str) else None
    try:
        return int(float(match[1]) * _UNITS[match[2].upper()])  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        raise ArgumentError(f'memory_budget must be bytes or text such as "2GiB" or "512MiB", not {value!r}') from None


def prefetch_within(budget: int, batch_nbytes: int, wanted: int) -> int:
    """How many batches may be made ahead so that all batches in flight fit into `budget` bytes: `wanted` of them at the most.

    In flight are the batches made ahead and `SPARE` that the consumer holds.

    Raises:
        MemoryBudgetError: when not even one fits; the message gives the least budget that works.
    """
    fits = budget // batch_nbytes - SPARE
    if fits < 1:
        least = (SPARE + 1) * batch_nbytes
        raise MemoryBudgetError(
            f"memory_budget of {size(budget)} is too small: one batch takes {size(batch_nbytes)}, and {SPARE + 1} of them must fit "
            f"(one being made, {SPARE} with the consumer), so the least that works is {least} bytes ({size(least)}); "
            "or lower batch_size or patch_size"
        )
    return min(fits, wanted)
