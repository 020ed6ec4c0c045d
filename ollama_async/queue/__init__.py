"""Who waits and who goes next. Kept empty on purpose: see ``tests/unit/test_layers.py``."""
