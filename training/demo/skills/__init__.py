"""One module for each thing the demo model can do; all have ``make(rng, *, held_out) -> Example``."""
