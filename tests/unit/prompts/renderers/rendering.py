"""Messages, tools and renderings in few words."""

import re

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.prompts.renderers import NAMES, named

OFFER_TOOLS = [name for name in NAMES if not name.endswith(("olmo3-think", "32b-think"))]


def user(text="ask"):
    return Message("user", text)


def assistant(text="", *calls, thinking=""):
    return Message("assistant", text, thinking=thinking, tool_calls=list(calls))


def call(name, ident="", **arguments):
    return ToolCall(ToolFunction(name, arguments), id=ident)


def result(text, **more):
    return Message("tool", text, **more)


def tool(name="add", **schema):
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def render(name, *messages, **more):
    return named(name).render(Prompt(messages=list(messages), **more))


def in_order(text, *parts):
    return re.search(".*".join(map(re.escape, parts)), text, re.DOTALL) is not None
