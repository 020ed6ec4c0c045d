"""One module for each skill; all have ``make(rng, *, held_out) -> Example``."""
