"""Who waits and who goes next. BoundedCache empty on purpose: see ``tests/unit/test_layers.py``."""
