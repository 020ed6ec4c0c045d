"""Scheduling of requests and models. Empty on purpose, see ``tests/unit/test_layers.py``."""
