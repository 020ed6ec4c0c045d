"""The interfaces of renderers and parsers: a conversation becomes the model's prompt, and the
model's answer becomes content, thoughts and tool calls.

Implementations only turn data into text and text into data: they read no files and use no
tokenizer.
"""

from __future__ import annotations

import re
from typing import Protocol

import msgspec

from ollama_async.core.conversation import Prompt, Thought, ToolCall


class Renderer(Protocol):
    def render(self, prompt: Prompt) -> str:
        """The text of ``prompt.messages`` (``prompt.raw`` is None), up to where the answer begins.

        The text may begin with a BOS as text. A renderer that runs a model's own template bounds
        its memory itself; the caller bounds its time.

        :raises TemplateFailed: the model's template cannot render these messages, and why.
        """


Part = str | Thought | ToolCall
"""What an answer consists of, in the order in which the model wrote it: content (never empty),
thoughts and tool calls.
"""


class ForcedCall(msgspec.Struct, frozen=True):
    """How an answer begins that must be a tool call: ``opening``, then the call. ``thoughts_end``:
    what ends thoughts before it, where that is not what ends them before other answers.
    """

    opening: str
    syntax: CallSyntax
    thoughts_end: str = ""


class Delimiters(msgspec.Struct, frozen=True):
    """The texts around the thoughts and the tool calls of an answer.

    ``calls`` is set only if a call is a JSON object of ``name`` and ``arguments``; ``forced`` if
    one of the ``syntaxes`` can be prescribed. ``syntaxes`` are
    the call syntaxes that :attr:`Parser.open_call` may return. ``begins_thinking``: the answer
    begins within thoughts. ``opening`` is what an answer without thoughts begins with. None: the
    model writes no such delimiters, or none as simple as a pair.
    """

    thoughts: tuple[str, str] | None = None
    calls: tuple[str, str] | None = None
    begins_thinking: bool = False
    opening: str = ""
    syntaxes: tuple[CallSyntax, ...] = ()
    forced: ForcedCall | None = None


class Parser(Protocol):
    """Parses one answer while it arrives. The joined parts do not depend on how the text is cut.

    Text is never lost: what looks like a tool call but cannot be parsed is content.
    """

    def feed(self, text: str) -> list[Part]:
        """The parts that are certain after ``text``."""

    def finish(self) -> list[Part]:
        """The parts that were held back. Call it once, when the answer has ended."""

    @property
    def call_number(self) -> int:
        """The number of the tool call that is open at the end of the text so far, from 1; calls
        that turn out to be content count as well. 0: none is open, or its syntax is not known.
        """

    @property
    def open_call(self) -> OpenCall | None:
        """The call that is open. Takes time in proportion to its text."""


class OutputFormat(Protocol):
    """How a model tags thoughts and tool calls in its answers; makes the parsers of answers."""

    @property
    def handles_tools(self) -> bool:
        """Whether tool calls are split off the content."""

    @property
    def handles_thinking(self) -> bool:
        """Whether a client may ask for thoughts."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Delimiters that must arrive as text, although the tokenizer may have them as control
        tokens.
        """

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        """The parser of the answer to ``prompt``, which was rendered as ``rendered``; None: all of
        the answer is content.
        """

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        """The delimiters that the answer to ``prompt`` will have, for the grammar that constrains
        it. Thoughts that would not be split off the content count as none.
        """


# ----------------------------------------------------------------- call syntaxes

UNDECIDED_LIMIT = 512
"""Characters after which a text that could have been a call is content."""

_IN_BRACES = frozenset('"}')
"""The characters that continue a JSON object."""

_NAME_IN_JSON = r'"(?:name|tool_name)"\s*:\s*"([^"\\]*)"\s*,\s*"(?:arguments|parameters)"\s*:'


class CallSyntax(msgspec.Struct, frozen=True, kw_only=True):
    """What follows the opening tag of a call, up to the end of the call.

    ``forms`` are the ways to write one call. In a form, a blank is any white space or none, these
    placeholders are replaced, and all other text is literal:

    - ``{call}``: a JSON object of the tool's name and its arguments. The keys are one of
      ``name_keys`` and ``argument_keys``; members with strings for ``extra_keys`` may be there too;
    - ``{keyed}``: a JSON object whose only key is the name, and its value the arguments;
    - ``{name}``: the name; ``{arguments}``: a JSON object of the arguments;
    - ``{parameters}``: each argument in the form ``parameter``, in which ``{key}`` is its name and
      ``{value}`` its value, with ``between`` between two of them. A value that may be a string is
      bare text, or text in one of ``quotes``; others are JSON. ``{is_text}`` is ``true`` if the
      value is bare text, else ``false``;
    - ``{id}``: up to 64 letters, digits and ``_ - . :``;
    - ``{space}``: one blank.

    ``repeated``: there may be more calls. ``listed`` are the ways to write one in a list of them,
    in brackets and with commas. ``prefix`` goes before all that, one of ``close`` after it.
    ``texts`` may stand in place of a name: what follows them is not a call.

    ``after``: the call begins after this text, which comes somewhere after the tag. ``waits``: it
    is a call only once a visible text has come with which one can begin, because the tag may be
    quoted in a text. ``named``: it is a call only once the name of an existing tool has been
    written up to what ends it, because the tag could be anything.
    """

    forms: tuple[str, ...]
    name_keys: tuple[str, ...] = ("name",)
    argument_keys: tuple[str, ...] = ("arguments", "parameters")
    extra_keys: tuple[str, ...] = ()
    parameter: str = ""
    between: str = ""
    quotes: tuple[str, ...] = ()
    repeated: bool = False
    listed: tuple[str, ...] = ()
    prefix: str = ""
    close: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    after: str = ""
    waits: bool = False
    named: bool = False

    def find_start(self, text: str, names: tuple[str, ...]) -> int | None:
        """The place in ``text``, which came after the tag, at which the call begins; None: it may
        not be one, or not yet. ``names`` are the names of the tools.
        """
        if self.waits and not self.may_begin(text, names):
            return None
        if self.named:  # the first text in the place of a name must be one of them
            found = re.search(_name_pattern(self.forms[0]), text[:UNDECIDED_LIMIT])
            if found is None or found[1].strip() not in names:
                return None
        place = text.find(self.after)
        return None if place < 0 else place + len(self.after)

    def may_begin(self, text: str, names: tuple[str, ...]) -> bool | None:
        """Whether a call of one of ``names`` can begin like ``text``; None: not known yet."""
        text = text.lstrip()
        if not text:
            return None
        forms = (self.prefix,) if self.prefix else self.forms
        found = [_begins(form, text, names) for form in forms]
        if self.listed and text[0] == "[":
            inside = text[1:].lstrip()
            found += [_begins(form, inside, names) if inside else None for form in self.listed]
        return True if True in found else None if None in found else False


class OpenCall(msgspec.Struct, frozen=True):
    """A call that a model has begun. ``text`` is what came after the opening tag, including the
    tag if that is part of the call.
    """

    syntax: CallSyntax
    text: str


def _name_pattern(form: str) -> str:
    """A pattern for the name in a call of this form, up to what ends it."""
    before, found, rest = form.partition("{name}")
    if not found:
        return _NAME_IN_JSON
    before = re.escape(before.replace("{space}", " "))
    end = re.escape(rest.lstrip(" ").partition("{")[0].rstrip(" "))
    return rf"^\s*{before}(.*?){end}"


def _begins(form: str, text: str, names: tuple[str, ...]) -> bool | None:
    """Whether a call of this form can begin like ``text``, which has no leading white space."""
    if form.startswith("{name}"):
        return any(name[0] == text[0] for name in names)
    if form.startswith(("{call}", "{keyed}")):
        inside = text[1:].lstrip()
        return text[0] == "{" and (inside[0] in _IN_BRACES if inside else None)
    head = form.replace("{space}", " ").partition("{")[0].rstrip(" ")
    return text.startswith(head) or (None if head.startswith(text) else False)
