"""What can go wrong between us and a registry: for good, or for now."""

from __future__ import annotations

LONGEST_TEXT = 600


class Failure(Exception):
    """Base of both; the text is what the client reads after what was tried.

    It may hold what a registry said, such as addresses: it is cut, and made one printable line.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text, LONGEST_TEXT))


def printable(text: str, longest: int) -> str:
    """In one line, without what would change a terminal or how the rest is read."""
    line = " ".join(text[: longest + 1].split())
    line = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line
    )
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


class Refused(Failure):
    """Asking again would change nothing. ``status``: the registry's, 0 if it was not the one."""

    def __init__(self, text: str, *, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class NotThere(Refused):
    """404, in Ollama's words, which clients match on."""

    def __init__(self) -> None:
        super().__init__("file does not exist", status=404)


class Transient(Failure):
    """May be better a moment later. ``after_s``: the registry named the moment."""

    def __init__(self, text: str, *, after_s: float = 0.0) -> None:
        super().__init__(text)
        self.after_s = after_s
