"""Recipes for the models that come with the package; needed to build them, never to run them."""
