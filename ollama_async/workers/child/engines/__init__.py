"""What can run a model: one file per engine, all behind ``port.Engine``."""
