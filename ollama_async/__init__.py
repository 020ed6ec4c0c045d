"""ollama_async: an Ollama-compatible server built for many people at once.

Importing the package itself must stay free of side effects and of third-party imports: the set-up
(``ollama_async.native``) runs it with a bare interpreter, before anything is installed.
"""

__version__ = "0.1.0"

OLLAMA_VERSION = "0.33.0"
"""The Ollama release whose behaviour we match; ``GET /api/version`` answers it."""
