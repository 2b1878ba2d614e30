"""Looking at what a recipe does: a sheet of patches before and after, with the parameters that were drawn."""

from patchflow.show.draw import sheet
from patchflow.show.patches import Shown, chosen_names, drawn_patches, foreground_sampler

__all__ = ["Shown", "chosen_names", "drawn_patches", "foreground_sampler", "sheet"]
