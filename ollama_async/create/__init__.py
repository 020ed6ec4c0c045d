"""``create``: a new model from files, from another model, or from safetensors."""
