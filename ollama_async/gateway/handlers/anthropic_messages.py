"""Translates Anthropic's messages to Ollama's, which the worker interprets.

Texts of one message are joined as they are. Results of tools become messages of their own: before
the text of a user's message, and in their place in the assistant's. Documents and search results
become text. Thinking that only Anthropic can read is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from ollama_async.api.anthropic import (
    ContentBlock,
    DocumentBlock,
    DocumentSource,
    ImageBlock,
    MessageParam,
    SearchResultBlock,
    ServerToolUseBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    WebSearchToolResultBlock,
)
from ollama_async.api.ollama import Message, ToolCall, ToolCallFunction
from ollama_async.core.errors import BadRequest

_SHOWN_CHARACTERS = 40  # of a type that is refused
_BETWEEN = "\n\n"
_ERROR = "Error: "

Names = dict[str, str]
"""The names of tools by the ids of their calls."""


def read_messages(
    system: str | Sequence[TextBlock] | None, params: Sequence[MessageParam]
) -> list[Message]:
    """The conversation, without messages that have no content.

    :raises BadRequest: nothing is left, or this server cannot use the content of a block.
    """
    names: Names = {}
    messages = [message for param in params for message in _read_message(param, names)]
    if not messages:
        raise BadRequest("messages: there is no content")
    if not isinstance(system, str):
        system = "".join(block.text for block in system or ())
    return [Message(role="system", content=system), *messages] if system else messages


def _read_message(param: MessageParam, names: Names) -> list[Message]:
    if isinstance(param.content, str):
        return [Message(role=param.role, content=param.content)] if param.content else []
    messages: list[Message] = []
    rest: list[ContentBlock] = []
    for block in param.content:
        if not isinstance(block, ToolResultBlock | WebSearchToolResultBlock):
            rest.append(block)
            continue
        if param.role != "user":
            messages += _turn(param.role, rest, names)
            rest = []
        messages.append(_result(block, names))
    return messages + _turn(param.role, rest, names)


def _turn(role: str, blocks: Sequence[ContentBlock], names: Names) -> list[Message]:
    """One message with all these blocks; none if they have no content."""
    uses = [block for block in blocks if isinstance(block, ToolUseBlock | ServerToolUseBlock)]
    names.update((use.id, use.name) for use in uses)
    thoughts = [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
    message = Message(
        role=role,
        content="".join(map(_text, blocks)),
        thinking=_BETWEEN.join(filter(None, thoughts)),
        images=_images(blocks),
        tool_calls=[_call(use, index) for index, use in enumerate(uses)],
    )
    has_content = message.content or message.thinking or message.images or uses
    return [message] if has_content else []


def _call(use: ToolUseBlock | ServerToolUseBlock, index: int) -> ToolCall:
    """:raises BadRequest: with Ollama's text."""
    for field, value in (("id", use.id), ("name", use.name)):
        if not value:
            raise BadRequest(f"tool_use block missing required '{field}' field")
    return ToolCall(ToolCallFunction(use.name, use.input, index), use.id)


def _result(block: ToolResultBlock | WebSearchToolResultBlock, names: Names) -> Message:
    """The message of the role ``tool``. The model reads that a tool has failed."""
    text, images = "", []
    if isinstance(block, WebSearchToolResultBlock):
        text = _search_text(block)
    elif isinstance(block.content, str):
        text = block.content
    elif block.content:
        text, images = "".join(map(_text, block.content)), _images(block.content)
    if isinstance(block, ToolResultBlock) and block.is_error:
        text = _ERROR + text
    return Message(
        role="tool",
        content=text,
        images=images,
        tool_name=names.get(block.tool_use_id, ""),
        tool_call_id=block.tool_use_id,
    )


def _text(block: ContentBlock) -> str:
    """What the block adds to the text of its message.

    :raises BadRequest: it is a document that is not text.
    """
    match block:
        case TextBlock():
            return block.text
        case DocumentBlock():
            return _reference(block.title, block.context, _document_text(block.source))
        case SearchResultBlock():
            text = "".join(each.text for each in block.content)
            return _reference(block.title, block.source, text)
        case _:
            return ""


def _reference(*texts: str | None) -> str:
    return "\n".join(filter(None, texts)) + _BETWEEN


def _document_text(source: DocumentSource) -> str:
    if source.type == "text":
        return source.data or ""
    if source.type == "content":
        content = source.content or ""
        return content if isinstance(content, str) else "".join(map(_text, content))
    kind = source.media_type if source.type == "base64" else source.type
    kind = str(kind)[:_SHOWN_CHARACTERS]
    raise BadRequest(f"invalid document source: {kind}. Only text documents are supported.")


def _images(blocks: Sequence[ContentBlock]) -> list[bytes]:
    """Of the blocks, and of documents that consist of blocks.

    :raises BadRequest: with Ollama's text.
    """
    images: list[bytes] = []
    for block in blocks:
        if isinstance(block, ImageBlock):
            images.append(block.source.decode())
        elif isinstance(block, DocumentBlock) and isinstance(block.source.content, list):
            images += _images(block.source.content)
    return images


def _search_text(block: WebSearchToolResultBlock) -> str:
    """As Ollama shows the model what was found."""
    if isinstance(block.content, list):
        return "".join(f"- {found.title}: {found.url}\n" for found in block.content)
    return f"web_search_tool_result_error: {block.content.error_code}"
