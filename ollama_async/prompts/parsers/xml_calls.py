"""Calls written in tags that look like XML, with values of any text.

Nothing in a value is escaped, so a value may hold closing tags: a closing tag is part of the value
if what comes next cannot follow a value. A value that also holds opening tags of calls or arguments
cannot be distinguished from a broken call, and is not parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.output_format import CallSyntax
from ollama_async.prompts.parsers.delimiter_search import Quote, tagged_strings
from ollama_async.prompts.parsers.tool_schemas import ParsedCalls, Tools, call_of, decoded

_DATA_BEGIN, _DATA_END = "<![CDATA[", "]]>"
_DATA_OPEN = re.compile(f"\\s*+{re.escape(_DATA_BEGIN)}")
_IS_STRING = re.compile(r'\bstring="(true|false)"')


class Element(msgspec.Struct, frozen=True):
    """An element: the texts around its name, and its closing tag."""

    open: str
    mid: str
    close: str


class XmlCalls:
    """One element for each call, and in it one for each argument.

    ``Element("<function=", ">", "</function>")`` is ``<function=add>…</function>``. Between the
    name's end and its ``>`` there may be other attributes; ``string`` tells text from JSON.
    ``lines``: one line break at each end of a value is markup; ``paired``: only if both are there.
    ``cdata``: a value may be in ``<![CDATA[…]]>``. ``writes_kind``: the model was trained to write
    the attribute ``string``. ``resolve`` returns the tool that a name means, if any.
    """

    def __init__(
        self,
        call: Element,
        argument: Element,
        *,
        lines: bool = True,
        paired: bool = False,
        cdata: bool = False,
        writes_kind: bool = False,
        resolve: Callable[[str, Tools], str | None] | None = None,
    ) -> None:
        self._elements = (call, argument)
        self._writes_kind = writes_kind
        self._call = _Finder(call, (call.open,), cdata=cdata)
        self._argument = _Finder(argument, (call.open, argument.open), cdata=cdata)
        self._lines = lines
        self._paired = paired
        self._resolve = resolve

    @property
    def syntax(self) -> CallSyntax:
        """An element for each call and for each argument."""
        call, argument = (
            Element(*(text.replace(" ", "{space}") for text in msgspec.structs.astuple(element)))
            for element in self._elements
        )
        kind = f'"{{space}}string="{{is_text}}{argument.mid}' if self._writes_kind else argument.mid
        return CallSyntax(
            forms=(f"{call.open}{{name}}{call.mid} {{parameters}} {call.close}",),
            parameter=f"{argument.open}{{key}}{kind}{{value}}{argument.close}",
            repeated=True,
        )

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None:
        for exactly in (False, True):
            calls = [
                self._one(found, tools, exactly=exactly)
                for found in self._call.all(text, exactly=exactly) or ()
            ]
            if calls and None not in calls:
                return [call for call in calls if call]
        return None

    def strings(self, *around: str) -> tuple[Quote, ...]:
        """The strings of calls that have the opening tags ``around`` them."""
        call, argument = self._elements
        return tagged_strings(argument.open, argument.close, call.open, *around, after=call.close)

    def _one(self, call: _Found, tools: Tools, *, exactly: bool) -> ToolCall | None:
        name = self._resolve(call.name, tools) if self._resolve else call.name
        found = self._argument.all(call.value, exactly=exactly)
        if not name or found is None:
            return None
        return call_of(name, {each.name: self._value(each, name, tools) for each in found})

    def _value(self, argument: _Found, tool: str, tools: Tools) -> Any:
        text = argument.value
        if argument.data is not None:
            return argument.data
        if argument.is_string:
            return text
        if self._paired:
            text = _without_paired_lines(text)
        elif self._lines:
            text = text.removeprefix("\n").removesuffix("\n")
        value = decoded(text) if argument.is_string is False else None
        return tools.value(tool, argument.name, text) if value is None else value


def _without_paired_lines(text: str) -> str:
    """``text`` without the line breaks at its ends if there are both."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "\n" else text


class _Found(msgspec.Struct, frozen=True):
    """``is_string``: whether the value is text; None: the tag does not tell. ``data``: the text of
    a CDATA section that is the whole value.
    """

    name: str
    value: str
    is_string: bool | None
    data: str | None


class _Finder:
    """Finds elements of one kind, in linear time. ``opening`` are the tags that no value holds."""

    def __init__(self, element: Element, opening: tuple[str, ...], *, cdata: bool) -> None:
        head, close = re.escape(element.open), re.escape(element.close)
        name = f"(?P<name>[^{re.escape(element.mid[0])}]*+){re.escape(element.mid[:-1])}"
        self._head = re.compile(f"\\s*+{head}{name}(?P<attributes>[^>]*+)>")
        self._opening = re.compile("|".join(map(re.escape, opening)))
        self._close = element.close
        data_end = f"{re.escape(_DATA_END)}\\s*+"
        self._ends = {
            exactly: (re.compile(end), re.compile(data_end + end) if cdata else None)
            for exactly, end in ((False, close), (True, f"{close}(?=\\s*+(?:{head}|$))"))
        }

    def all(self, text: str, *, exactly: bool) -> list[_Found] | None:
        """The elements that ``text`` consists of; None: it holds something else. ``exactly``: a
        closing tag counts only where an element can end.
        """
        end_of_text, end_of_data = self._ends[exactly]
        found = []
        at = 0
        while head := self._head.match(text, at):
            start, end, data = head.end(), None, None
            if end_of_data and (begin := _DATA_OPEN.match(text, start)):
                end = end_of_data.search(text, begin.end())
                if end:
                    data = text[begin.end() : end.start()]
                else:
                    end_of_data = None  # no later section ends, either
            end = end or end_of_text.search(text, start)
            if end is None:
                break
            value = text[start : end.start()] if data is None else ""
            rest = _without_data(value) if exactly else ""
            if self._close in rest and self._opening.search(rest):
                return None
            attribute = _IS_STRING.search(head["attributes"])
            is_string = None if attribute is None else attribute[1] == "true"
            found.append(_Found(head["name"].strip(), value, is_string, data))
            at = end.end()
        return None if text[at:].strip() else found


def _without_data(value: str) -> str:
    """``value`` without CDATA sections."""
    kept, at = [], 0
    while (begin := value.find(_DATA_BEGIN, at)) >= 0:
        end = value.find(_DATA_END, begin + len(_DATA_BEGIN))
        if end < 0:
            break
        kept.append(value[at:begin])
        at = end + len(_DATA_END)
    return "".join(kept) + value[at:]


# ----------------------------------------------------------------- pairs of tags: a key, a value


class PairCalls:
    """``add<arg_key>a</arg_key><arg_value>1</arg_value>``. ``suffix`` ends every tag's name.
    ``separator`` is the tag after the name of the tool, if there is one. ``tags`` are all tags.
    """

    def __init__(self, suffix: str = "", *, separator: str = "") -> None:
        names = ("arg_key", "/arg_key", "arg_value", "/arg_value")
        pair = tuple(f"<{name}{suffix}>" for name in names)
        self._key, self._key_end, self._value, self._value_end = pair
        self._after_name = f"<{separator}{suffix}>" if separator else ""
        self.tags = (*pair, self._after_name) if separator else pair
        key, key_end, value, value_end = map(re.escape, pair)
        self._tags = re.compile(f"({key}|{key_end}|{value}|{value_end})")
        self._opening = re.compile(f"{key}|{value}")
        self._pair = re.compile(
            f"\\s*+{key}(?P<key>[^<]*+){key_end}\\s*+{value}(?P<value>.*?){value_end}"
            f"(?=\\s*+(?:{key}|$))",
            re.DOTALL,
        )

    @property
    def syntax(self) -> CallSyntax:
        return CallSyntax(
            forms=(f"{{name}} {self._after_name} {{parameters}}",),
            parameter=f"{self._key}{{key}}{self._key_end} {self._value}{{value}}{self._value_end}",
        )

    def strings(self, *around: str) -> tuple[Quote, ...]:
        """The strings of calls that have the opening tags ``around`` them."""
        return tagged_strings(self._value, self._value_end, *around, after=self._key)

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None:
        """A missing tag is restored if its partner shows the place. If no tag is missing, a value
        may hold closing tags that no key follows.
        """
        read = self._complete(text) or self._forgiving(self._tags.split(text))
        name = read.name.strip().removesuffix(self._after_name).strip()
        if not name or len(read.keys) != len(read.values):
            return None
        pairs = [
            (key.strip(), _without_paired_lines(value))
            for key, value in zip(read.keys, read.values, strict=True)
        ]
        return [call_of(name, {key: tools.value(name, key, text) for key, text in pairs})]

    def whole(self, text: str, tools: Tools) -> ParsedCalls | None:
        """The call if no tag is missing: a cut answer may lack more than tags."""
        if self._complete(text):
            return self(text, tools)
        pair = f"{self._key}{self._key_end}{self._value}{self._value_end}"
        if "".join(self._tags.findall(text)).replace(pair, ""):
            return None
        return self(text, tools)

    def _complete(self, text: str) -> _Read | None:
        """The names and values of a text in which no tag is missing."""
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
        """The names and values of a text, split at its tags (text, tag, text, …, text)."""
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
