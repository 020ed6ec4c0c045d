"""OpenAI's messages, tools, formats and efforts in the terms of Ollama's requests, for all its
routes.

The parts of a message stay one message: its texts are joined by line ends, as llama.cpp and vLLM
do, and ``[img]`` stands in the text for an image or sound that comes after some of it. (Ollama
makes a message of each part, and so turns one question into several.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ollama_async.api import ollama, openai
from ollama_async.api.data_urls import decode_base64, decode_image_url
from ollama_async.api.decode import decode_object, fits_one_call
from ollama_async.core.errors import BadRequest
from ollama_async.gateway.handlers.tool_choice import choose_any, choose_one, choose_some

_EFFORTS: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}
_EFFORT_NAMES = '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'
_PLACE = "[img]"
"""Where the next image of a message stands in its text."""

_SHOWN_CHARACTERS = 40  # of a value that is refused


def think_of(effort: str | None) -> bool | str | None:
    """How much a model thinks at this ``reasoning_effort``; None and "": as its default.

    :raises BadRequest: with Ollama's text.
    """
    if not effort:
        return None
    if effort not in _EFFORTS:
        shown = effort[:_SHOWN_CHARACTERS]
        raise BadRequest(f'invalid reasoning value: "{shown}" (must be {_EFFORT_NAMES})')
    return _EFFORTS[effort]


def read_format(
    kind: str, schema: dict[str, Any] | None, place: str
) -> dict[str, Any] | str | None:
    """Ollama's ``format`` for the type of a format, and its schema. ``place``: its field.

    :raises BadRequest: it is none of OpenAI's.
    """
    if kind == "text":
        return None
    if kind == "json_object":
        return "json"
    if kind != "json_schema":
        shown = kind[:_SHOWN_CHARACTERS]
        raise BadRequest(
            f"{place}: the type {shown!r} is not one of text, json_object, json_schema"
        )
    if schema is None:
        raise BadRequest(f"{place}: the schema is missing")
    return schema


# --------------------------------------------------------------------------- messages


def read_messages(messages: Sequence[openai.Message]) -> list[ollama.Message]:
    """Each as one of Ollama's. A tool's message without a name gets that of the call it answers.

    :raises BadRequest: with Ollama's texts.
    """
    check_arguments(
        call.function.arguments for message in messages for call in message.tool_calls or ()
    )
    names: dict[str, str] = {}
    read: list[ollama.Message] = []
    for message in messages:
        calls = _read_calls(message)
        names.update((call.id, call.function.name) for call in calls if call.id)
        text, images = _read_content(message)
        answered = message.tool_call_id or ""
        read.append(
            ollama.Message(
                role=message.role,
                content=text,
                thinking=message.reasoning or message.reasoning_content or "",
                images=images,
                tool_calls=calls,
                tool_name=(message.name or names.get(answered, "")) if _is_tool(message) else "",
                tool_call_id=answered,
            )
        )
    return read


def _is_tool(message: openai.Message) -> bool:
    return message.role in {"tool", "function"}


def _read_content(message: openai.Message) -> tuple[str, list[bytes]]:
    """Its text, and its images and sounds in their order."""
    content = message.content
    if isinstance(content, str):
        return content, []
    if content is None:
        instead = message.refusal or message.reasoning or message.reasoning_content
        if not (instead or message.tool_calls or message.function_call):
            raise BadRequest("invalid message content type: <nil>")
        return message.refusal or "", []
    pieces: list[str | None] = []
    images: list[bytes] = []
    for part in content:
        match part.type:
            case "text":
                pieces.append(part.text)
            case "refusal":
                pieces.append(part.refusal)
            case "image_url":
                images.append(_read_image(part.image_url))
                pieces.append(None)
            case "input_audio":
                images.append(_read_audio(part.input_audio))
                pieces.append(None)
            case _:
                raise BadRequest("invalid message format")
    return _join(pieces), images


def _join(pieces: list[str | None]) -> str:
    """The text of a message, with None for each image. Images without a place come first."""
    texts = [piece for piece in pieces if piece is not None]
    are_first = pieces[len(pieces) - len(texts) :] == texts
    has_own_places = any(_PLACE in text for text in texts)
    if are_first or has_own_places:
        return "\n".join(texts)
    return "\n".join(_PLACE if piece is None else piece for piece in pieces)


def _read_image(image: openai.ImageUrl | str | None) -> bytes:
    if image is None:
        raise BadRequest("invalid message format")
    return decode_image_url(image if isinstance(image, str) else image.url)


def _read_audio(audio: openai.InputAudio | None) -> bytes:
    if audio is None or not audio.data:
        raise BadRequest("invalid message format")
    return decode_base64(audio.data)


# --------------------------------------------------------------------------- tools


def _read_calls(message: openai.Message) -> list[ollama.ToolCall]:
    calls = list(message.tool_calls or ())
    if message.function_call is not None:
        calls.append(openai.ToolCall(function=message.function_call))
    return [
        ollama.ToolCall(
            id=call.id,
            function=ollama.ToolCallFunction(
                index=index,
                name=call.function.name,
                arguments=read_arguments(call.function.arguments),
            ),
        )
        for index, call in enumerate(calls)
    ]


def check_arguments(texts: Iterable[str]) -> None:
    """:raises BadRequest: all arguments of a request together have too many values."""
    fits_one_call("".join(texts).encode())


def read_arguments(text: str) -> dict[str, Any]:
    """The arguments of a call; an empty text means none.

    :raises BadRequest: with Ollama's text.
    """
    try:
        return decode_object(text) if text else {}
    except ValueError:
        raise BadRequest("invalid tool call arguments") from None


def check_functions(tools: Sequence[dict[str, Any]]) -> None:
    """Only functions can be called.

    :raises BadRequest: names the tool that is something else.
    """
    for index, tool in enumerate(tools):
        kind = tool.get("type") or "function"
        if kind != "function":
            raise BadRequest(
                f"tools[{index}]: the type {kind[:_SHOWN_CHARACTERS]!r} is not supported"
            )
        function = tool.get("function") or {}
        if not function.get("name"):
            raise BadRequest(f"tools[{index}].function.name is missing")


def choose_tools(
    choice: str | openai.ToolChoice | None, tools: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str]:
    """The tools of which the model is told, and the ``tool_choice`` of a prompt.

    :raises BadRequest: it cannot be obeyed.
    """
    if not isinstance(choice, openai.ToolChoice):
        return tools, choose_any(tools, "auto" if choice is None else choice)
    if choice.type == "function":
        return tools, choose_one(tools, choice.function.name)
    if choice.type == "allowed_tools":
        allowed = choice.allowed_tools
        names = [each.function.name for each in allowed.tools]
        return choose_some(tools, names, allowed.mode or "auto")
    raise BadRequest("tool_choice: only functions can be named")
