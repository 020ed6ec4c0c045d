"""Headers of messages within an answer: ``<|start|>assistant<|channel|>final to=user``."""

from __future__ import annotations

import re

import msgspec

from ollama_async.prompts.parsers.states import Outcome

_HEADER = re.compile(
    r"\s*(?:<\|start\|>)?\s*(?:assistant|user|system|tool|developer)?"
    r"(?:\s*<\|channel\|>\s*(?:analysis|commentary|final)|\s*to=[^\s<]+"
    r"|\s*(?:<\|constrain\|>)?\s*(?:json|code))*\s*"
)
_CHANNEL = re.compile(r"<\|channel\|>\s*([^\s<]*)")
_RECIPIENT = re.compile(r"to=\s*([^\s<]+)")


class Header(msgspec.Struct, frozen=True):
    """To whom a message goes, and in which channel; empty: not said."""

    channel: str
    recipient: str


def cut_off(text: str) -> Outcome | None:
    """The answer ended where a header would have come; or it was none, but text."""
    return None if text.strip() else Outcome([], "content")


def header(text: str) -> Header | None:
    """None: this is no header but text."""
    if not _HEADER.fullmatch(text):
        return None
    channel = _CHANNEL.search(text)
    recipient = _RECIPIENT.search(text)
    return Header(channel[1] if channel else "", recipient[1] if recipient else "")
