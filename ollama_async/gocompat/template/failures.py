"""What goes wrong inside a template, before it is known where."""

from __future__ import annotations


class CallFailed(Exception):
    """A function refuses its arguments; the text is Go's."""


class Rejected(Exception):
    """The template asks for what Go does not do; the text is Go's."""
