"""Which marks an answer will have, for what prescribes its form."""

from __future__ import annotations

from ollama_async.conversation import Prompt
from ollama_async.prompts.parsers import cohere, glimmer
from ollama_async.prompts.parsers.bodies.objects import JsonCalls
from ollama_async.prompts.parsers.family import Asked, Begin, Calls, Family
from ollama_async.prompts.parsers.harmony import Harmony
from ollama_async.prompts.port import Format, Marks

_CALL = ("<tool_call>", "</tool_call>")

_HARMONY = Marks(
    thoughts=(
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    )
)


def marks_of(format_: Format | None, prompt: Prompt, rendered: str) -> Marks:
    """The marks that ``format_`` reads in the answer to ``prompt``, whose text was ``rendered``.

    Thoughts that it would not take out of the content count as none.
    """
    if isinstance(format_, Harmony):
        return _HARMONY
    asked = Asked.by(prompt, rendered)
    if isinstance(format_, cohere.Cohere):
        begin = format_.begin(asked)
        return Marks() if begin == "content" else Marks(cohere.THOUGHTS, None, begin == "thinking")
    if isinstance(format_, glimmer.Glimmer):
        return Marks() if asked.think is False else Marks(glimmer.THOUGHTS)
    return _of_family(format_, asked) if isinstance(format_, Family) else Marks()


def _of_family(format_: Family, asked: Asked) -> Marks:
    calls = _CALL if any(map(_is_plain_json, format_.calls)) else None
    thoughts = format_.thoughts
    if thoughts is None or (format_.tools_instead and asked.tools):
        return Marks(calls=calls)
    begin = thoughts.begin(asked)
    if begin is Begin.CONTENT:
        return Marks(calls=calls)
    return Marks((thoughts.open, thoughts.close), calls, begin in {Begin.THOUGHTS, Begin.AGAIN})


def _is_plain_json(calls: Calls) -> bool:
    """Whether they look like those that Hermes and Qwen were taught."""
    return calls.open == _CALL[:1] and (
        isinstance(calls.read, JsonCalls) or _CALL[1] in calls.noise
    )
