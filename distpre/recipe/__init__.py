"""YAML -> a checked Recipe -> objects. A wrong key is refused where it is written, with the nearest right one."""

from distpre.recipe.load import load, prepare, resolved
from distpre.recipe.schema import Component, Recipe

__all__ = ["Component", "Recipe", "load", "prepare", "resolved"]
