"""The queue's patches as a map-style dataset, for a plain `torch.utils.data.DataLoader`."""

from typing import Any

import torch
from torch.utils.data import Dataset

from patchflow.loading.maker import PatchMaker
from patchflow.loading.plan import Plan
from patchflow.types import count


class PatchDataset(Dataset[dict[str, Any]]):
    """Patch `index` of an epoch, as a dict: each image (C, i, j, k), "location" int64 (6,), "index" int, "subject" name.

    `DataLoader(queue.dataset, batch_size=...)`, without shuffling (the plan is shuffled already), gives the queue's batches.
    """

    def __init__(self, maker: PatchMaker, plan: Plan) -> None:
        self._maker = maker
        self._plan = plan
        # In shared memory, so that the persistent workers of a DataLoader see `set_epoch` too.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._plan)

    def set_epoch(self, epoch: int) -> None:
        """Give the patches of another epoch from now on."""
        self._epoch[0] = count(epoch, "epoch", 0)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"patch {index} of an epoch of {len(self)}")  # ends a plain `for` over the dataset
        request = self._plan.request(int(self._epoch[0]), index)
        made = self._maker.make(request)
        return {**made.images, "location": torch.from_numpy(made.location.as_array()), "index": index, "subject": made.subject}
