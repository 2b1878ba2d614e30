"""patchflow feeds 3D medical images to neural networks."""
