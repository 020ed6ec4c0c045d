"""Calls written as pairs of tags: ``add<arg_key>a</arg_key><arg_value>1</arg_value>``."""

from __future__ import annotations

import re

import msgspec

from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.call_strings import Quote, values
from ollama_async.prompts.parsers.tagged_calls import paired_lines_less
from ollama_async.prompts.parsers.tool_schemas import Tools, call_of


class PairCalls:
    """``suffix`` stands at the end of every tag's name. ``separator`` is the tag that ends the name
    of the tool, if there is one; ``after_name`` its text. ``tags`` are all of them.
    """

    def __init__(self, suffix: str = "", *, separator: str = "") -> None:
        names = ("arg_key", "/arg_key", "arg_value", "/arg_value")
        pair = tuple(f"<{name}{suffix}>" for name in names)
        self._key, self._key_end, self._value, self._value_end = pair
        self.after_name = f"<{separator}{suffix}>" if separator else ""
        self.tags = (*pair, self.after_name) if separator else pair
        key, key_end, value, value_end = map(re.escape, pair)
        self._tags = re.compile(f"({key}|{key_end}|{value}|{value_end})")
        self._opening = re.compile(f"{key}|{value}")
        self._pair = re.compile(
            f"\\s*+{key}(?P<key>[^<]*+){key_end}\\s*+{value}(?P<value>.*?){value_end}"
            f"(?=\\s*+(?:{key}|$))",
            re.DOTALL,
        )

    def strings(self, *around: str) -> tuple[Quote, ...]:
        """How values are marked in calls that have the opening marks ``around`` them."""
        return values(self._value, self._value_end, *around, after=self._key)

    def __call__(self, text: str, tools: Tools) -> Pieces | None:
        """A tag that the model forgot is put back where its partner tells the place. In a text
        with all of them, a value may hold closing tags, where no key follows.
        """
        read = self._complete(text) or self._forgiving(self._tags.split(text))
        name = read.name.strip().removesuffix(self.after_name).strip()
        if not name or len(read.keys) != len(read.values):
            return None
        pairs = [
            (key.strip(), paired_lines_less(value))
            for key, value in zip(read.keys, read.values, strict=True)
        ]
        return [call_of(name, {key: tools.value(name, key, text) for key, text in pairs})]

    def whole(self, text: str, tools: Tools) -> Pieces | None:
        """As a call, but with every tag in its place: an answer that was cut off may lack more
        than tags.
        """
        if self._complete(text):
            return self(text, tools)
        pair = f"{self._key}{self._key_end}{self._value}{self._value_end}"
        if "".join(self._tags.findall(text)).replace(pair, ""):
            return None
        return self(text, tools)

    def _complete(self, text: str) -> _Read | None:
        """What a text says in which no tag is missing."""
        at = text.find(self._key)
        if at < 0 or self._tags.search(text[:at]):
            return None
        read = _Read(text[:at])
        while found := self._pair.match(text, at):
            if self._opening.search(found["value"]):
                return None
            read.keys.append(found["key"])
            read.values.append(found["value"])
            at = found.end()
        return None if text[at:].strip() else read

    def _forgiving(self, tokens: list[str]) -> _Read:
        """What a text says that was split at its tags (text, tag, text, …, text)."""
        read = _Read(tokens[0])
        if tokens[1:2] == [self._key_end]:
            read.name, _, key = read.name.strip().partition(" ")
            read.keys.append(key)
        for place in range(2, len(tokens), 2):
            before, text = tokens[place - 1], tokens[place]
            after = tokens[place + 1] if place + 1 < len(tokens) else ""
            if before == self._key or after == self._key_end:
                read.keys.append(text)
            elif before == self._value or after == self._value_end:
                read.values.append(text)
            else:
                read.name += text
        return read


class _Read(msgspec.Struct):
    name: str
    keys: list[str] = []
    values: list[str] = []


pairs = PairCalls()
