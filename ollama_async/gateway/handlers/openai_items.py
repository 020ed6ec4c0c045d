"""The items of ``/v1/responses`` as the messages of a conversation, and as they are stored.

What the model thought, said and called between two messages of others is one message of its own, as
templates expect it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import msgspec

from ollama_async.api import encode, ollama
from ollama_async.api.data_urls import decode_base64, decode_image_url
from ollama_async.api.decode import TEXT_LIMIT_BYTES
from ollama_async.api.openai import InputAudio
from ollama_async.api.openai_responses import ContentPart, InputItem
from ollama_async.core.errors import BadRequest, TooLarge
from ollama_async.gateway.handlers.openai_messages import check_arguments, read_arguments
from ollama_async.gateway.response_formats.openai_responses import new_id
from ollama_async.gateway.response_store import StoredResponse

MEDIA_LIMIT_BYTES = 256 << 20
"""Of all images and recordings of a conversation, in base64, as of a body."""

_ID_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "web_search_call": "ws",
}
_GROUP_SIZE = 512
"""Items that are written and read in one call, during which the event loop does not run."""

_SHOWN_CHARACTERS = 40  # of a value that is refused


def read_items(earlier: Sequence[InputItem], added: Sequence[InputItem]) -> list[ollama.Message]:
    """The messages of items: of stored ones, and of those that the request adds.

    :raises BadRequest: names the item that is wrong, with Ollama's text where it has one.
    :raises TooLarge: they are too long together.
    """
    check_arguments(item.arguments for item in chain(earlier, added))
    conversation = _Conversation()
    for item in earlier:
        conversation.add(item)
    for index, item in enumerate(added):
        try:
            conversation.add(item)
        except BadRequest as error:
            raise BadRequest(f"input[{index}]: {error.message}") from None
    conversation.flush_thinking()
    return conversation.messages


class _Conversation:
    """The messages of the items so far. ``names`` are those of the called functions by call id."""

    def __init__(self) -> None:
        self.messages: list[ollama.Message] = []
        self._thinking: list[str] = []
        self._names: dict[str, str] = {}
        self._text_size = self._media_size = 0

    def add(self, item: InputItem) -> None:
        match item.kind:
            case "message":
                self._add_message(item)
            case "function_call":
                self._add_call(item)
            case "function_call_output":
                self._add_output(item)
            case "reasoning":
                self._add_thinking(item)
            case "web_search_call":
                pass  # what was found is in the message that follows
            case "":
                raise BadRequest("input item missing required 'type' field")
            case unknown:
                raise BadRequest(f'unknown input item type: "{unknown[:_SHOWN_CHARACTERS]}"')

    def _add_thinking(self, item: InputItem) -> None:
        """``encrypted_content`` is the plain text that this server gave out."""
        text, _ = self._read(item.encrypted_content or item.content or item.summary)
        if text:
            self._thinking.append(text)

    def flush_thinking(self) -> None:
        """Thinking that led to nothing is a message of its own."""
        if self._thinking:
            self.messages.append(ollama.Message(role="assistant", thinking=self._take_thinking()))

    def _add_message(self, item: InputItem) -> None:
        text, images = self._read(item.content)
        message = ollama.Message(role=item.role, content=text, images=images)
        if message.role != "assistant":
            self.flush_thinking()
            self.messages.append(message)
            return
        last = self._unfinished()
        if last is not None and last.tool_calls and not (last.content or images):
            last.content = text
        else:
            last = message
            self.messages.append(message)
        last.thinking = self._take_thinking() or last.thinking

    def _add_call(self, item: InputItem) -> None:
        name = item.name
        if item.namespace and not name.startswith(f"{item.namespace}."):
            name = f"{item.namespace}.{name}"
        self._names[item.call_id] = name
        arguments = read_arguments(self._counted(item.arguments))
        message = self._unfinished()
        if message is None:
            message = ollama.Message(role="assistant")
            self.messages.append(message)
        message.thinking = self._take_thinking() or message.thinking
        function = ollama.ToolCallFunction(
            index=len(message.tool_calls), name=name, arguments=arguments
        )
        message.tool_calls.append(ollama.ToolCall(id=item.call_id, function=function))

    def _unfinished(self) -> ollama.Message | None:
        """The model's message at the end, which may go on unless it thought anew."""
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != "assistant" or (self._thinking and last.thinking):
            return None
        return last

    def _add_output(self, item: InputItem) -> None:
        self.flush_thinking()
        text, images = self._read(item.output)
        self.messages.append(
            ollama.Message(
                role="tool",
                content=text,
                images=images,
                tool_name=self._names.get(item.call_id, ""),
                tool_call_id=item.call_id,
            )
        )

    def _read(self, content: str | list[ContentPart] | None) -> tuple[str, list[bytes]]:
        """Its text, and its images and recordings in their order."""
        if isinstance(content, str):
            return self._counted(content), []
        texts: list[str] = []
        images: list[bytes] = []
        for part in content or ():
            match part.type:
                case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
                    texts.append(self._counted(part.text))
                case "refusal":
                    texts.append(self._counted(part.refusal))
                case "input_image":
                    images.append(self._read_image(part))
                case "input_audio" if part.input_audio is not None:
                    images.append(self._read_audio(part.input_audio))
                case "input_file":
                    raise BadRequest("file inputs are not currently supported")
                case unknown:
                    raise BadRequest(f"unknown content type: {unknown[:_SHOWN_CHARACTERS]}")
        return "".join(texts), images

    def _read_image(self, part: ContentPart) -> bytes:
        if not part.image_url:
            raise BadRequest("input_image without an image_url: files are not supported")
        self._count_media(part.image_url)
        return decode_image_url(part.image_url)

    def _read_audio(self, audio: InputAudio) -> bytes:
        self._count_media(audio.data)
        return decode_base64(audio.data)

    def _count_media(self, encoded: str) -> None:
        self._media_size += len(encoded)
        if self._media_size > MEDIA_LIMIT_BYTES:
            raise TooLarge(f"images and recordings are over {MEDIA_LIMIT_BYTES} bytes")

    def _counted(self, text: str) -> str:
        self._text_size += len(text)
        if self._text_size > TEXT_LIMIT_BYTES:
            raise TooLarge(f"the conversation is over the limit of {TEXT_LIMIT_BYTES} bytes")
        return text

    def _take_thinking(self) -> str:
        thinking, self._thinking = "".join(self._thinking), []
        return thinking


# --------------------------------------------------------------------------- stored items


class _Answer(msgspec.Struct):
    output: list[InputItem]


_read_answer = msgspec.json.Decoder(_Answer).decode
_read_group = msgspec.json.Decoder(list[InputItem]).decode


def write_input(items: Sequence[InputItem]) -> list[bytes]:
    """The items as they are stored, which get ids if they have none."""
    for item in items:
        item.type = item.kind
        item.id = item.id or new_id(_ID_PREFIXES[item.type])
    groups = (items[at : at + _GROUP_SIZE] for at in range(0, len(items), _GROUP_SIZE))
    return [encode.to_json(group) for group in groups]


def read_input(response: StoredResponse) -> list[InputItem]:
    """The items that its request added."""
    return [item for group in response.input for item in _read_group(group)]


def read_stored(response: StoredResponse) -> list[InputItem]:
    """The items that its request added, and its output."""
    return read_input(response) + _read_answer(response.answer).output


def shown_form(item: InputItem) -> InputItem:
    """A stored item as it is listed: with a status, and its content as parts."""
    if item.type != "reasoning":
        item.status = item.status or "completed"
    if item.type == "message" and isinstance(item.content, str):
        part = "output_text" if item.role == "assistant" else "input_text"
        item.content = [ContentPart(type=part, text=item.content)]
    return item
