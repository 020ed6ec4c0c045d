"""What a template writes for calls in the history, taken for the model's own answer."""

import re
from functools import cache
from itertools import zip_longest

import msgspec

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction

QUESTION, RESULT, SAID, THOUGHT = "zqquestionqz", "zqresultqz", "zqtextqz before", "zqthoughtqz"

ENDS = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|end_of_text|endoftext|END_OF_TURN_TOKEN|observation|user|calls)\|>"
    r"|<\|(?:assistant_end|start_header_id|eot|call|role_end|end_of_msg|START_OF_TURN_TOKEN)\|>"
    r"|<\|end\|>(?!<\|(?:start|begin)\|>assistant)|</s>|<eos>|<｜end▁of▁sentence｜>|<end_of_turn>"  # noqa: RUF001
    r"|<turn\|>|\[e~\[|<seed:eos>|<start_function_response>|<\|tool_response>|</assistant>"
    r"|<end_of_sentence>|<SPECIAL_12>|<sep>|<｜hy_eos:opensource｜>|(?<=<\|tools_suffix\|>)\["  # noqa: RUF001
    r"|<\|message_sep\|>\n\nfunction result|<｜tool▁outputs▁begin｜>"  # noqa: RUF001
)
"""Where these models end an answer; what follows is no part of it."""
_LEADS = re.compile(r"</think>|<\|CHATBOT_TOKEN\|>")
"""What belongs to the prompt of a model that is to answer at once."""
_CONTROL = re.compile(
    r"<\|[^|<>]*\|>|<｜[^｜]*｜>|\[[A-Z_]+\]|<\|\w+>|<\w+\|>"  # noqa: RUF001
    r"|</?\w+:opensource>|｜DSML｜|\]<\]minimax\[>\["  # noqa: RUF001
)
"""Tags that may be control tokens, which arrive only if a format asks for them."""


def _tool(name, **types):
    properties = {
        parameter: {"anyOf": [{"type": "number"}, {"type": "null"}]}
        if type_ == "nullable"
        else {"type": type_}
        for parameter, type_ in types.items()
    }
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": "something to call",
            "parameters": {"type": "object", "properties": properties},
        },
    }


TOOLS = [
    _tool("get_tide", place="string", days="integer"),
    _tool("write_file", path="string", text="string"),
    _tool("ping"),
]
SET_ALL = _tool(
    "set_all",
    text="string",
    whole="integer",
    part="number",
    yes="boolean",
    no="boolean",
    nothing="nullable",
    items="array",
    deep="object",
)

TIDE = ("get_tide", {"place": "Norderney", "days": 2})
PING = ("ping", {})


def written(text, path="a.txt"):
    return ("write_file", {"path": path, "text": text})


CASES = {
    "one": [TIDE],
    "two of one": [TIDE, ("get_tide", {"place": "Sylt", "days": 3})],
    "two": [TIDE, written("high tide")],
    "no arguments": [PING],
    "no arguments and some": [PING, TIDE],
    "other scripts": [written("日本語 🌊 “quoted”", path="größe/日本.txt")],
    "quotes": [written("He said \"no\", it's 'so'.", path="a b.txt")],
    "backslashes": [written('a\\b \\" \\n \\\\ \\u0041 end', path="C:\\temp\\new")],
    "lines": [written("one\n\ttwo\n\n  three, four")],
    "markup": [written("<b>1 < 2 && 3 > 2</b> &amp; <br/>", path="a.html")],
    "brackets": [written("int f() { return a[0]; } }]) [[{{(( done", path="a.c")],
    "like a number": [written("true", path="12")],
    "like nothing": [written("null", path="None")],
    "like JSON": [written('{"a": [1, "b"]}')],
    "no text": [written("")],
    "space around": [written("  x  ")],
    "a line break at the end": [written("x\n")],
    "all types": [
        (
            "set_all",
            {
                "text": "x",
                "whole": 2**53,
                "part": 1.5,
                "yes": True,
                "no": False,
                "nothing": None,
                "items": [1, "two", [3.5, None], {"k": [True]}],
                "deep": {"a": {"b": {"c": [{"e": 'it\'s "f"'}]}}, "empty": {}, "none": []},
            },
        )
    ],
    "a number of 64 bits": [("set_all", {"whole": 2**63 - 1})],
}


def tool_calls(calls):
    return [
        ToolCall(ToolFunction(name, arguments, index=number), id=f"a{number}b2c3d4e")
        for number, (name, arguments) in enumerate(calls)
    ]


def tools_of(calls):
    """Some templates cannot describe every type, which is another question."""
    return [*TOOLS, SET_ALL] if any(name == "set_all" for name, _ in calls) else TOOLS


class Answer(msgspec.Struct):
    """``rendered`` is the prompt that ``text`` answers, ``prompt`` the request behind it."""

    prompt: Prompt
    rendered: str
    text: str

    def without_control_tokens(self, kept):
        """As from a tokenizer for which each tag is a control token, except for ``kept``."""
        swallowed = _CONTROL.sub(lambda tag: tag[0] if tag[0] in kept else "", self.text)
        return msgspec.structs.replace(self, text=swallowed)


def answer(chat_format, calls, *, think=None, **said):
    """The assistant's turn with ``calls`` and what is ``said``, as ``chat_format`` renders it."""
    made = tool_calls(calls)
    messages = [
        Message("user", QUESTION),
        Message("assistant", tool_calls=made, **said),
        *(
            Message("tool", RESULT, tool_name=call.function.name, tool_call_id=call.id)
            for call in made
        ),
    ]
    prompt = Prompt(messages=messages[:1], tools=tools_of(calls), think=think)
    asked = _asked(chat_format, len(prompt.tools), think)
    shown = chat_format.render(msgspec.structs.replace(prompt, messages=messages))
    before, text = _parted(
        asked[asked.rindex(QUESTION) :], shown[shown.rindex(QUESTION) :].partition(RESULT)[0]
    )
    end = ENDS.search(text)
    return Answer(prompt, before, text[: end.start()] if end else text)


@cache
def _asked(chat_format, tools, think):
    """The prompt before the answer, which is the same for many calls."""
    offered = [*TOOLS, SET_ALL][:tools]
    return chat_format.render(Prompt([Message("user", QUESTION)], tools=offered, think=think))


def _parted(asked, shown):
    """What is common to the prompt and to the same turns as history, and what follows there."""
    pairs = enumerate(zip_longest(asked, shown))
    common = next((place for place, (one, other) in pairs if one != other), len(asked))
    if common < len(asked):
        torn = re.search(r"<[^<>\s]*$", shown[:common])
        common = torn.start() if torn else common
        lead = _LEADS.match(shown, common)
        common = lead.end() if lead and THOUGHT not in shown else common
    return shown[:common], shown[common:]
