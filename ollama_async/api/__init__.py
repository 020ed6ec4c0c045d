"""Ollama's API as data: requests, responses, options, Modelfiles. No I/O with clients."""
