"""Sliding-window inference of each package, set up as its own documentation says, for the same volume, windows and model.

A module per package offers `NEEDS` (what must be importable), `SETTINGS` (batch sizes and the like, of which the fastest is taken) and
`build(material, variant, setting)`, which gives a function of (model, product). Product "logits" is the stitched output of the model, a
tensor (C, I, J, K) in memory; "labels" the label map, (1, I, J, K) or (I, J, K), in whatever dtype the package's way gives.
"""
