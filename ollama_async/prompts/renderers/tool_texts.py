"""Texts that several families share: the styles of JSON, lists of tools, and written calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.exceptions import SecurityError

from ollama_async.core.conversation import Prompt, ToolFunction
from ollama_async.core.json_depth import TOOL_DEPTH
from ollama_async.gocompat.render_budget import TEXT_LIMIT
from ollama_async.prompts.render_limits import allow_number, allow_text
from ollama_async.prompts.renderers.conversation_view import ConversationView, table, text

Dump = Callable[[Any], str]

TOOL_SIGNATURES = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

"""

CALLS_ARE_JSON = (
    TOOL_SIGNATURES
    + """\
For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
)

CALLS_ARE_XML = """\
# Tools

You have access to the following functions:

<tools>
{tools}
</tools>

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must \
be nested within <tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the \
function call, but NOT after
- If there is no function call available, answer the question like normal with your current \
knowledge and do not tell the user about function calls
</IMPORTANT>"""


def json_lines(view: ConversationView) -> str:
    """The tools as they were declared, one per line."""
    return "\n".join(spaced(tool.declared) for tool in view.tools)


def xml_elements(view: ConversationView, dump: Dump) -> str:
    """The tools as ``<function>`` elements; ``dump`` writes the JSON inside."""
    return "\n".join(
        _element(
            "function",
            _leaf("name", tool.name)
            + (_leaf("description", tool.description.strip()) if tool.description else "")
            + _parameters(tool.parameters, dump),
        ).rstrip("\n")
        for tool in view.tools
    )


def xml_call(call: ToolFunction) -> str:
    """``<tool_call>`` with one ``<parameter=…>`` for each argument."""
    arguments = "".join(
        f"<parameter={name}>\n{bare(value)}\n</parameter>\n"
        for name, value in call.arguments.items()
    )
    return f"<tool_call>\n<function={call.name}>\n{arguments}</function>\n</tool_call>"


def json_call(call: ToolFunction) -> str:
    """``<tool_call>`` around an object of name and arguments."""
    inside = f'{{"name": {spaced(call.name)}, "arguments": {spaced(call.arguments)}}}'
    return f"<tool_call>\n{inside}\n</tool_call>"


def key_value_call(call: ToolFunction, line_end: str = "") -> str:
    """``<tool_call>`` with ``<arg_key>`` and ``<arg_value>`` in turn."""
    arguments = "".join(
        f"<arg_key>{name}</arg_key>{line_end}<arg_value>{bare(value)}</arg_value>{line_end}"
        for name, value in call.arguments.items()
    )
    return f"<tool_call>{call.name}{line_end}{arguments}</tool_call>"


def python_call(call: ToolFunction, comma: str = ", ") -> str:
    """``name(city="Paris", days=2)``"""
    arguments = comma.join(f"{key}={_python(value)}" for key, value in call.arguments.items())
    return f"{call.name}({arguments})"


def _python(value: Any) -> str:
    return str(value) if value is None or isinstance(value, bool) else spaced(value)


def _parameters(schema: Mapping[str, Any], dump: Dump) -> str:
    properties = table(schema.get("properties"))
    inside = "".join(
        _element("parameter", _leaf("name", name) + _fields(table(field), dump))
        for name, field in properties.items()
    )
    extra = {key: value for key, value in schema.items() if key not in {"type", "properties"}}
    return _element("parameters", inside + _leaves(extra, dump))


def _fields(schema: Mapping[str, Any], dump: Dump) -> str:
    first = {key: schema[key] for key in ("type", "description", "enum") if key in schema}
    if "description" in first:
        first["description"] = text(first["description"]).strip()
    rest = {key: value for key, value in schema.items() if key not in {*first, "name"}}
    return _leaves({**first, **rest}, dump)


def _leaves(values: Mapping[str, Any], dump: Dump) -> str:
    return "".join(
        _leaf(key, value if isinstance(value, str) else dump(value))
        for key, value in values.items()
    )


def _leaf(name: str, inside: str) -> str:
    return f"<{name}>{inside}</{name}>\n"


def _element(name: str, inside: str) -> str:
    return f"<{name}>\n{inside}</{name}>\n"


# ----------------------------------------------------------------- JSON

_INDENT = 4
_LETTERS_AROUND = 8  # quotes, comma, colon, braces


def spaced(value: Any) -> str:
    """``{"a": [1, 2]}``, as Python and most chat templates write it."""
    return json.dumps(value, ensure_ascii=False)


def compact(value: Any) -> str:
    """``{"a":[1,2]}``"""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def indented(value: Any) -> str:
    """On several lines, indented by four blanks."""
    return json.dumps(value, ensure_ascii=False, indent=_INDENT)


def bare(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else spaced(value)


def check(prompt: Prompt) -> None:
    """Check what renderers rely on: nothing in ``prompt`` is too deep or too large.

    :raises SecurityError: tools or arguments of calls are nested too deep or hold a number that is
        too long to print, or the whole would be more text than a prompt may have.
    """
    weight = sum(len(message.content) + len(message.thinking) for message in prompt.messages)
    allow_text(weight)
    for message in prompt.messages:
        for call in message.tool_calls:
            weight += _LETTERS_AROUND + len(call.function.name)
            weight += _weigh(call.function.arguments, TEXT_LIMIT - weight)
    _weigh(prompt.tools, TEXT_LIMIT - weight)


def _weigh(value: Any, room: int) -> int:
    """Roughly the characters that ``value`` becomes."""
    weight = 0
    left = [(value, 1)]
    while left:
        part, depth = left.pop()
        if depth > TOOL_DEPTH:
            raise SecurityError(f"more than {TOOL_DEPTH} levels of JSON")
        weight += _LETTERS_AROUND + _INDENT * depth
        if isinstance(part, str):
            weight += len(part)
        elif isinstance(part, int):
            allow_number(part.bit_length())
        inside = len(part) if isinstance(part, dict | list | tuple) else 0
        if weight + (len(left) + inside) * _LETTERS_AROUND > room:
            allow_text(TEXT_LIMIT + 1)
        if isinstance(part, dict):
            left += ((key, depth) for key in part)
            left += ((inner, depth + 1) for inner in part.values())
        elif isinstance(part, list | tuple):
            left += ((inner, depth + 1) for inner in part)
    return weight
