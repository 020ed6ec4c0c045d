"""Recipes of the models that the package carries. Nothing here is needed at run time."""
