"""Who takes part: name -> the module that sets it up, and the variant of it."""

from importlib import import_module, util
from types import ModuleType
from typing import NamedTuple


class Contestant(NamedTuple):
    """One row of the table; `augments`: whether the package has transforms of its own."""

    module: str
    variant: str
    augments: bool = True

    def load(self) -> ModuleType:
        return import_module(f"benchmarks.contestants.{self.module}")

    def missing(self) -> list[str]:
        """The packages it needs that are not installed."""
        return [name for name in self.load().NEEDS if util.find_spec(name) is None]


OURS = {
    "patchflow, threads": Contestant("patchflow_queue", "thread contiguous"),
    "patchflow, processes": Contestant("patchflow_queue", "process contiguous"),
    "patchflow, threads, compressed": Contestant("patchflow_queue", "thread compressed"),
    "patchflow, processes, compressed": Contestant("patchflow_queue", "process compressed"),
}
PEERS = {
    "nnU-Net v2": Contestant("nnunet", ""),
    "TorchIO Queue": Contestant("torchio_queue", ""),
    "MONAI CacheDataset, DataLoader": Contestant("monai_cache", "process"),
    "MONAI CacheDataset, ThreadDataLoader": Contestant("monai_cache", "thread"),
    "MONAI CacheDataset, thread workers": Contestant("monai_cache", "threads"),
    "medh5 PatchDataset": Contestant("medh5_dataset", "", augments=False),
}
ALL = OURS | PEERS
