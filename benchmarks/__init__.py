"""What patchflow costs, measured against its peers in the same run: `python -m benchmarks.loading`."""
