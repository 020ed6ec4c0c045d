"""Scripted models: the JSON file that defines the answers of the scripted engine.

It maps model names to :class:`Script` objects, for example::

    {"story": {"tokens": ["Once ", "upon "], "repeat": true, "tokens_per_second": 20, "slots": 4}}
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from ollama_async.core.errors import LoadFailed

_WORD = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The behaviour of one model.

    Answers: ``tokens`` is a list, or a text that is split before each gap between words; with
    ``echo`` it is the prompt instead. ``repeat``: number of repetitions; true = forever.

    Speed of each stream: ``tokens_per_second`` and ``prompt_tokens_per_second``; 0 = unlimited,
    otherwise at least 1, so that no step takes longer than a second.

    With ``drafts``, the engine takes drafts: several tokens may come at once.

    ``slots`` and ``num_ctx``: 0 = what the server requests, which is also the maximum. ``cells``:
    the KV cache is a pool of so many, at least ``num_ctx``; 0 = each slot has its own.
    ``template`` is a Jinja template; ``capabilities`` are those besides ``completion`` or
    ``embedding``.

    ``dimensions`` > 0: an embedding model, with vectors of so many numbers. It ``ranks``: it has a
    score of a query and a document instead. An input that contains ``nan_on`` gets NaN, one that
    contains ``inf_on`` infinity. ``crash_at`` and ``hang_at`` count its inputs.

    Failures: loading takes ``load_seconds``, and fails with ``load_error`` if it is not empty.
    Instead of token ``crash_at`` (from 0) the process kills itself, unless ``crash_once_file``
    exists, which a crash creates. At token ``hang_at`` the engine never returns. A prompt that
    contains ``crash_on`` kills the process when it gets its slot. ``ignore_sigterm``: it ignores
    SIGTERM, and never finishes closing on ``Quit``.
    """

    tokens: list[str] | str = []
    echo: bool = False
    repeat: bool | int = 1
    tokens_per_second: float = 0
    prompt_tokens_per_second: float = 0
    drafts: bool = False
    slots: int = 0
    num_ctx: int = 0
    cells: int = 0
    template: str = ""
    go_template: str = ""
    renderer: str = ""
    parser: str = ""
    capabilities: list[str] = []
    dimensions: int = 0
    ranks: bool = False
    nan_on: str = ""
    inf_on: str = ""
    weights_bytes: int = 0
    cache_bytes_per_token: int = 0
    load_seconds: float = 0
    load_error: str = ""
    crash_at: int | None = None
    crash_once_file: str = ""
    crash_on: str = ""
    hang_at: int | None = None
    ignore_sigterm: bool = False

    def __post_init__(self) -> None:
        for name in ("tokens_per_second", "prompt_tokens_per_second"):
            if 0 != getattr(self, name) < 1:
                raise ValueError(f"{name} must be 0 or at least 1")
        sizes = ("weights_bytes", "cache_bytes_per_token", "dimensions", "load_seconds")
        for name in ("slots", "num_ctx", "cells", *sizes):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")

    @property
    def is_embedding(self) -> bool:
        return self.ranks or self.dimensions > 0

    def pieces(self) -> list[str]:
        """``tokens`` as a list, none of them empty."""
        if isinstance(self.tokens, str):
            return _WORD.findall(self.tokens)
        return [token for token in self.tokens if token]


def read_scripts(path: str | Path) -> dict[str, Script]:
    """The scripts by model name.

    :raises LoadFailed: the file cannot be read, or is invalid.
    """
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Script])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as reason:
        raise LoadFailed(f"scripts {str(path)!r}: {reason}") from reason
