"""Single transforms of each package, set up to do the same to the same patch: one float32 patch of one channel and its label map.

A module per package offers `NEEDS` (what must be importable) and `build(row, material)`, which gives a `Call`, or None where the package
has no such transform. Each transform is applied always, with the strengths of `rows.py`, and is made once, as users do; what is timed is
the call, which draws and applies. Peers are handed the patch in memory, a fresh copy for each call, since some work in place.
"""
