"""Transforms of MONAI and TorchIO as steps of a recipe, with the guarantees of its other steps.

They become callables of a recipe: they run after its spatial and intensity transforms, on the patch alone, and what they return is checked.
Neither library is needed to import this package.
"""

from patchflow.adapters.monai import from_monai
from patchflow.adapters.torchio import from_torchio

__all__ = ["from_monai", "from_torchio"]
