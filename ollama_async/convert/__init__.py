"""Weights as they are published, safetensors and JSON files, made into one GGUF file."""
