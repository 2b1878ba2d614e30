"""Each loader set up as its own documentation says, for the same work: label-balanced patches of image and label.

A module per package offers `NEEDS` (what must be importable), `prepare(pairs, folder, settings)`, which turns NIfTI pairs into the
package's own data, `batches(folder, settings, variant)`, an endless iterator of (image, label) tensors, and `CYCLE`: batches after which
its work repeats.
`WARM`: batches to draw before anything is timed.
"""
