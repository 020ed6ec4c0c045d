"""What a client asks for as the text of a grammar, in llguidance's variant of Lark.

An answer in a prescribed form is: thoughts, if the model marks any and the client does not forbid
them, then the form itself. Control tokens within marks are named by their ids; everything else is
text, whatever tokens it comes in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ollama_async.core.conversation import Inference
from ollama_async.core.errors import BadRequest
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.grammar.json_schema import prepare

CALLS_LIMIT = 16
"""Calls in an answer that must be calls; a model could otherwise go on for ever."""

_HEAD = '%llguidance {"no_forcing": true}\n'
_RULES = r"""
ANYTHING: /(?s:.*)/
blank: /[ \t\r\n]{1,8}/
gap: /[ \n]{1,2}/
"""

Special = Mapping[int, bytes]


def is_asked(inference: Inference) -> bool:
    """Whether the client prescribes a form; else the answer may be anything."""
    return is_call_forced(inference) or inference.format is not None


def is_call_forced(inference: Inference) -> bool:
    return inference.prompt.tool_choice not in {"auto", "none"}


def write(inference: Inference, rendered: str, marks: Delimiters, special: Special) -> str:
    """The grammar of an answer to ``inference``, which has a form.

    A forced tool call goes before ``format``.

    :raises BadRequest: nothing can hold the model to what the client asks for.
    """
    prompt = inference.prompt
    if is_call_forced(inference):
        if marks.calls is None:
            raise BadRequest("tool_choice: this model's tool calls cannot be forced")
        body = tool_call_grammar(prompt.tools, prompt.tool_choice, *marks.calls, special=special)
    else:
        body = f"answer: {json_rule(inference.format)}\n"
    return _HEAD + _lead(prompt.think, rendered, marks, special) + body + _RULES


def schema_grammar(form: object) -> str:
    """The grammar of an answer that is JSON of the ``form`` and nothing else: to try schemas out.
    Requests go through :func:`write`.

    :raises BadRequest: as :func:`json_rule`.
    """
    return f"{_HEAD}start: {json_rule(form)}\n"


def json_rule(form: object, *, loosely: bool = False) -> str:
    """What matches JSON of the ``form``: ``"json"`` (an object) or a JSON Schema. ``loosely``: as
    far as the schema can be enforced.

    :raises BadRequest: it is neither, or cannot be enforced.
    """
    if form == "json":
        form = {"type": "object"}
    if not isinstance(form, (dict, bool)):
        raise BadRequest(
            f'invalid format: {json.dumps(form)}; expected "json" or a valid JSON Schema object'
        )
    return f"%json {prepare(form, loosely=loosely)}"


def tool_call_grammar(
    tools: Sequence[dict[str, Any]], choice: str, begin: str, end: str, *, special: Special
) -> str:
    """The rule ``answer``: one call or, with ``choice`` ``required``, several, each a JSON object
    of ``name`` and ``arguments`` between ``begin`` and ``end``.

    :raises BadRequest: the chosen tool does not exist, or its schema cannot be enforced.
    """
    offered = [_Tool(tool) for tool in tools]
    chosen = [tool for tool in offered if choice in {"required", tool.name}]
    if not chosen:
        raise BadRequest(f"tool_choice: there is no tool {choice!r}" if offered else "no tools")
    rules = [
        f"call_{number}: {literal(tool.head)} gap? {tool.rule()}\n"
        for number, tool in enumerate(chosen)
    ]
    either = " | ".join(f"call_{number}" for number in range(len(rules)))
    name = literal('"name":')
    opened = f'{sequence(begin, special)} gap? "{{" gap? {name} gap? ({either})'
    rules.append(f'call: {opened} gap? "}}" gap? {sequence(end, special)}\n')
    more = f" (gap? call){{0,{CALLS_LIMIT - 1}}}" if choice == "required" else ""
    return f"answer: call{more}\n" + "".join(rules)


class _Tool:
    def __init__(self, tool: dict[str, Any]) -> None:
        function = tool.get("function")
        function = function if isinstance(function, dict) else {}
        self.name = str(function.get("name", ""))
        self._parameters = function.get("parameters") or {"type": "object"}
        self.head = f'{json.dumps(self.name, ensure_ascii=False)}, "arguments":'

    def rule(self) -> str:
        try:
            return json_rule(self._parameters)
        except BadRequest as error:
            raise BadRequest(f"tool {self.name!r}: {error.message}") from None


def _lead(think: bool | str | None, rendered: str, marks: Delimiters, special: Special) -> str:
    """The rule ``start``, with what may come before the answer proper: thoughts, unless the client
    forbids them, and what an answer without any begins with.
    """
    opening = sequence(marks.opening, special) if marks.opening else ""
    if marks.thoughts is None:
        return f"start: {opening} answer\n"
    begin, end = marks.thoughts
    is_thinking = marks.begins_thinking or rendered.rstrip().endswith(begin)
    if think is False:
        # what the prompt has begun, as some templates do for any client, ends at once
        before = f"{sequence(end, special)} blank?" if is_thinking else opening
        return f"start: {before} answer\n"
    first, *rest = _atoms(end, special)
    if first.startswith("<"):  # a token: text cannot be mistaken for it
        rules = f"thoughts: ANYTHING {first} {' '.join(rest)}\n"
    else:
        rules = f"until[lazy]: ANYTHING {first}\nthoughts: until {' '.join(rest)}\n"
    if is_thinking:
        return rules + "start: thoughts blank? answer\n"
    thought = f"blank? {sequence(begin, special)} thoughts"
    before = f"({thought} | {opening})" if opening else f"({thought})?"
    return rules + f"start: {before} blank? answer\n"


def sequence(text: str, special: Special) -> str:
    """What matches ``text`` and nothing else."""
    return " ".join(_atoms(text, special))


def _atoms(text: str, special: Special) -> list[str]:
    """``text`` cut into literals and control tokens."""
    ids = {each.decode(): token for token, each in special.items()}
    if not ids:
        return [literal(text)]
    longest_first = sorted(ids, key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
    return [f"<[{ids[part]}]>" if part in ids else literal(part) for part in parts if part]


def literal(text: str) -> str:
    """What matches ``text`` in tokens that are text themselves."""
    return json.dumps(text, ensure_ascii=False)
