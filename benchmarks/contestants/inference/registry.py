"""Who takes part in `benchmarks.inference`."""

from benchmarks.contestants.registry import Contestant

CACHED, IN_MEMORY, HANN = "patchflow, cache", "patchflow, array", "patchflow, cache, hann"
MONAI, NNUNET, TORCHIO = "MONAI sliding_window_inference", "nnU-Net v2 predictor", "TorchIO GridAggregator, hann"
OURS = {
    CACHED: Contestant("inference.patchflow_predict", "cache gaussian"),
    IN_MEMORY: Contestant("inference.patchflow_predict", "array gaussian"),
    HANN: Contestant("inference.patchflow_predict", "cache hann"),
}
PEERS = {
    MONAI: Contestant("inference.monai_sliding", ""),
    NNUNET: Contestant("inference.nnunet_predictor", ""),
    TORCHIO: Contestant("inference.torchio_grid", ""),
}
ALL = OURS | PEERS
TIGHT = {"patchflow, cache, 1 GiB": Contestant("inference.patchflow_predict", "cache gaussian 1GiB")}
"""With a budget of memory, for many classes."""
AGAINST = {MONAI: (CACHED, 5.0), NNUNET: (CACHED, 1.0), TORCHIO: (HANN, 3.0)}
"""Each peer's counterpart, which has its window function, and how many times as fast that should be."""
