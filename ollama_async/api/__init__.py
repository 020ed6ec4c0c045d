"""The public wire language: Structs, options, decoding and encoding; no I/O."""
