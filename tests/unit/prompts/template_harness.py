"""A conversation with a call, and templates rendered with conversations."""

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.prompts.jinja_renderer import JinjaRenderer

TOOLS = [{"type": "function", "function": {"name": "f"}}]
TURNS = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"


def calling(id_="call_12345678"):
    return [
        Message("user", "u"),
        Message("assistant", tool_calls=[ToolCall(ToolFunction("f", {"k": "v"}), id=id_)]),
        Message("tool", "r", tool_name="f", tool_call_id=id_),
    ]


def render(template, *messages, tools=()):
    prompt = Prompt(messages=list(messages), tools=list(tools))
    return JinjaRenderer(template, bos="", eos="").render(prompt)
