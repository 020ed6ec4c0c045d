"""What the machine is: cores, memory, GPUs, and what a model needs of them."""
