"""The augmentation that a configuration describes."""

from patchflow.augment.config import load_recipe, recipe_from
from patchflow.augment.recipe import Recipe
from patchflow.commands.settings import PatchSettings


def recipe_of(patches: PatchSettings) -> Recipe | None:
    """A preset, what a file holds, or what the section itself holds; None for no augmentation."""
    if patches.augment is None or isinstance(patches.augment, str):
        return None if patches.augment is None else load_recipe(patches.augment, patches.size)
    return recipe_from(patches.augment)
