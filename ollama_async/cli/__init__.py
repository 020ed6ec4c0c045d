"""The command line: an HTTP client with Ollama's commands and texts."""
