"""The model store: names to files, GGUF checked before native code sees it, import."""
