"""The machine's cores, memory and GPUs, and what a model takes of them."""
