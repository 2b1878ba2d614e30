"""The order of an epoch, as requests: which subject each patch is drawn from, and which patches make up a step on which rank."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchflow import seeding
from patchflow.errors import ArgumentError
from patchflow.types import count


@dataclass(frozen=True)
class Request:
    """One patch to make: everything that the patch depends on, besides the cache, the sampler, the recipe and the seed."""

    epoch: int
    index: int
    entry: int


class Plan:
    """Every epoch's sequence of subjects.

    An epoch holds `subjects x samples_per_volume` patches. Without weights each subject gives exactly `samples_per_volume` of them. With
    weights, subject s is due n_s = epoch length x weight_s / sum of weights patches and gives the floor or the ceiling of n_s, n_s on
    average (systematic sampling: one uniform offset, then equal steps through the cumulative weights). Shuffled, every order is equally
    likely; otherwise subjects come one after the other.

    Args:
        subjects: number of subjects.
        samples_per_volume: patches per subject and epoch.
        seed: the run's seed.
        shuffle: whether the order is permuted anew in each epoch.
        weights: one weight per subject, at least 0, not all 0; None for equal shares.
    """

    def __init__(
        self, subjects: int, samples_per_volume: int, seed: int, shuffle: bool = True, weights: Sequence[float] | None = None
    ) -> None:
        if subjects < 1:
            raise ArgumentError("there is no subject to draw patches from: give at least one")
        self.subjects = subjects
        self.samples_per_volume = count(samples_per_volume, "samples_per_volume", 1)
        self.seed = seeding.check_seed(seed)
        self.shuffle = shuffle
        self.weights = None if weights is None else _check_weights(weights, subjects)
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self.subjects * self.samples_per_volume

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The subject number of each patch of `epoch`, int64 (epoch length,)."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._make_order(epoch)
        return self._order[1]

    def request(self, epoch: int, index: int) -> Request:
        """Patch `index` of `epoch`."""
        if not 0 <= index < len(self):
            raise ArgumentError(f"patch index {index} does not exist: an epoch has the patches 0 to {len(self) - 1}")
        return Request(epoch, index, int(self.order(epoch)[index]))

    def _make_order(self, epoch: int) -> npt.NDArray[np.int64]:
        rng = seeding.plan_generator(self.seed, epoch)
        if self.weights is None:
            order = np.repeat(np.arange(self.subjects), self.samples_per_volume)
        else:
            cumulative = np.cumsum(self.weights)
            points = (np.arange(len(self)) + rng.random()) / len(self) * cumulative[-1]
            order = np.searchsorted(cumulative, points, side="right")
            # Rounding may put the last point on the end of the sum; it belongs to the last subject that has a weight.
            order = np.minimum(order, np.flatnonzero(self.weights)[-1])
        return rng.permutation(order) if self.shuffle else order


@dataclass(frozen=True)
class Steps:
    """How an epoch's patches fall into steps and ranks.

    Step k takes the next `batch_size x world_size` patches of the plan, of which rank r has the r-th share: with the global batch fixed,
    the set of patches in a step is the same for every world size. A last, smaller step is shared out as evenly as can be, or left out
    with `drop_last`.

    Args:
        length: patches in the epoch.
        batch_size: patches per step on one rank.
        drop_last: whether a last step with fewer patches is left out.
        rank, world_size: which share is this process's.
        begin: patches of the epoch that were taken before, when a run is resumed.
    """

    length: int
    batch_size: int
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1
    begin: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ArgumentError(f"rank must lie in 0..{self.world_size - 1} for a world size of {self.world_size}, not {self.rank}")
        if self.length < self.global_batch and self.drop_last:
            raise ArgumentError(
                f"an epoch of {self.length} patches holds no full step of {self.global_batch}, and drop_last leaves out the rest: "
                "raise samples_per_volume, or lower batch_size"
            )
        rest = (self.length - self.begin) % self.global_batch
        if 0 < rest < self.world_size and not self.drop_last:
            raise ArgumentError(
                f"the last step of an epoch of {self.length} patches would have {rest} for {self.world_size} ranks, and a rank without "
                "a patch would wait for ever: set drop_last=True, or another samples_per_volume or batch_size"
            )

    @property
    def global_batch(self) -> int:
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        left = self.length - self.begin
        return left // self.global_batch if self.drop_last else -(-left // self.global_batch)

    def indices(self, step: int) -> range:
        """The plan's indices that this rank makes in `step`, counted from `begin`."""
        start = self.begin + step * self.global_batch
        size = min(self.global_batch, self.length - start)
        share, extra = divmod(size, self.world_size)
        low = start + self.rank * share + min(self.rank, extra)
        return range(low, low + share + (self.rank < extra))

    def taken(self, step: int) -> int:
        """Patches of the epoch that all ranks have taken once `step` is done."""
        return min(self.begin + (step + 1) * self.global_batch, self.length)


def _check_weights(weights: Sequence[float], subjects: int) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise ArgumentError(f"subject_weights must be a list of numbers, one for each subject in order, not {weights!r}") from None
    if array.shape != (subjects,):
        raise ArgumentError(f"subject_weights must have one weight for each of the {subjects} subjects, not shape {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any() or array.sum() <= 0:
        raise ArgumentError(f"subject_weights must be finite, at least 0 and not all 0, not {array.tolist()}")
    return array
