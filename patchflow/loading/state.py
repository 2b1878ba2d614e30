"""Where a run stands in its stream of patches, and the small dict that says so in a checkpoint."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from patchflow.augment.recipe import Recipe
from patchflow.cache.read import Cache
from patchflow.errors import ArgumentError
from patchflow.loading.plan import Plan
from patchflow.sampling.base import Sampler
from patchflow.types import count

_VERSION = 1
_MUST_AGREE = {"version": "format version", "seed": "seed", "length": "number of patches per epoch", "plan": "plan"}


class Position:
    """The epoch that a run is in, and how many of the epoch's patches all ranks together have taken.

    Args:
        repeat: whether every iteration gives the same epoch; otherwise each gives the next.
    """

    def __init__(self, repeat: bool = False) -> None:
        self._repeat = repeat
        self.move(0)

    def move(self, epoch: int, taken: int = 0) -> None:
        """Let the next iteration give `epoch`, from its patch `taken` on."""
        self._epoch, self._taken, self._begun = epoch, taken, False

    def begin(self) -> tuple[int, int]:
        """An iteration begins: the epoch that it gives, and how many of its patches were taken before."""
        if self._begun:
            self._epoch, self._taken = self._following(), 0
        self._begun = True
        return self._epoch, self._taken

    def took(self, epoch: int, taken: int) -> None:
        """So many patches of `epoch` were taken once the batch is handed over that is about to be."""
        self._epoch, self._taken, self._begun = epoch, taken, True

    def where(self, is_over: Callable[[int], bool]) -> tuple[int, int]:
        """Epoch and patches taken; of the following epoch, if `is_over` says that an epoch of which so many are taken has no more steps."""
        if self._begun and is_over(self._taken):
            return self._following(), 0
        return self._epoch, self._taken

    def _following(self) -> int:
        return self._epoch if self._repeat else self._epoch + 1


def state_of(epoch: int, taken: int, plan: Plan, digest: str) -> dict[str, Any]:
    """The dict for a checkpoint: plain JSON values."""
    return {"version": _VERSION, "epoch": epoch, "taken": taken, "seed": plan.seed, "length": len(plan), "plan": digest}


def digest_of(cache: Cache, plan: Plan, sampler: Sampler, recipe: Recipe) -> str:
    """What decides a run's patches besides seed and length, in a few characters."""
    weights = None if plan.weights is None else plan.weights.tolist()
    subjects = [[entry.name, *(record.digest for record in entry.images.values())] for entry in cache]
    parts = [subjects, cache.fingerprint, plan.shuffle, weights, sampler.fingerprint, recipe.to_dict()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def checked_state(state: Any, mine: Mapping[str, Any]) -> tuple[int, int]:
    """Epoch and patches taken of a state, if a run whose own state is `mine` can go on from there.

    Raises:
        ArgumentError: for something that is no state, or one of a run with another seed, sampler, set of subjects or order.
    """
    if not isinstance(state, Mapping) or not set(mine) <= set(state):
        raise ArgumentError(f"the state cannot be resumed: it must be a dict with {', '.join(mine)}, from state_dict, not {state!r}")
    for name, what in _MUST_AGREE.items():
        if state[name] != mine[name]:
            hint = " (subjects, their files, preprocessing, sampler, shuffle, weights or transforms differ)" if name == "plan" else ""
            raise ArgumentError(
                f"the state cannot be resumed: its {what} is {state[name]!r}, this queue's is {mine[name]!r}{hint}; "
                "make the queue with the arguments of the run that saved it"
            )
    epoch, taken = (count(state[name], f"the state's {name}", 0) for name in ("epoch", "taken"))
    if taken > mine["length"]:
        raise ArgumentError(f"the state cannot be resumed: it has {taken} patches taken of an epoch of {mine['length']}")
    return epoch, taken
