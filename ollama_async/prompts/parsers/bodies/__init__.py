"""Readers of what stands between the marks of a call: a text in, the calls in it out.

Every reader is a ``Read``: it gets the text and the client's tools, and answers the calls in their
order, with text between them that belongs to none; None: this is not what it reads.
"""

from __future__ import annotations

from collections.abc import Callable

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.parsers.tool_schemas import Tools

Pieces = list[ToolCall | str]
Read = Callable[[str, Tools], Pieces | None]
