"""GGUF files: headers read as untrusted input, and what the server derives from them."""
