"""From a request with tools to calls that obey their schemas, with a scripted model."""

import json

import pytest

from ollama_async.core.conversation import (
    ChatFormatSpec,
    Inference,
    Message,
    Prompt,
    Sampling,
    Thought,
)
from ollama_async.prompts.chat_format import choose
from ollama_async.prompts.output_format import UNDECIDED_LIMIT, CallSyntax, OpenCall
from ollama_async.workers.child import drafting
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines import scripted
from ollama_async.workers.child.grammar.constraints import CallGuard
from ollama_async.workers.child.mailbox import Mailbox
from ollama_async.workers.child.preprocessor import Preprocessor, RequestPreparer
from ollama_async.workers.child.prompt_encoder import ChatFormatCache
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import Deltas, Done, Failed, Submit, ToolCallDelta
from tests.unit.child.loop_harness import EagerLookup

HERMES = "{{ messages[-1].content }}{% if tools %}{{ tools }}{% endif %}<tool_call></tool_call>"
LLAMA = '{{ messages[-1].content }}{{ tools }}<|python_tag|>{"name": ..., "parameters": ...}'
TIDE = {
    "type": "function",
    "function": {
        "name": "get_tide",
        "parameters": {
            "type": "object",
            "properties": {"place": {"enum": ["Wyk", "Husum"]}, "days": {"type": "integer"}},
            "required": ["place"],
        },
    },
}
RIGHT = ("get_tide", {"place": "Wyk"})


class Worker:
    """The halves of a worker without its threads."""

    def __init__(self, engine, **options):
        self.mailbox = Mailbox()
        chat_formats = ChatFormatCache(engine, choose)
        unlimited = lambda *_limit: lambda action: action()  # noqa: E731
        self.preprocessor = Preprocessor(
            RequestPreparer(engine, chat_formats, unlimited, **options), self.mailbox
        )
        lookup = EagerLookup(is_invariant=True) if engine.facts.can_draft else None
        self.loop = EngineLoop(engine, self.mailbox, self.hear, BatchPlanner(64), lookup=lookup)
        self.content, self.thinking, self.calls, self.end = "", "", [], None

    def hear(self, messages):
        for message in messages:
            if isinstance(message, Deltas):
                for _, piece in message.items:
                    self.take(piece)
            elif isinstance(message, (Done, Failed)):
                self.end = message

    def take(self, piece):
        match piece:
            case ToolCallDelta(call):
                self.calls.append((call.function.name, call.function.arguments))
            case Thought(text):
                self.thinking += text
            case _:
                self.content += piece

    def ask(self, *, tools=(TIDE,), form=None, **prompt):
        prompt = Prompt([Message("user", "Hi")], tools=list(tools), **prompt)
        submit = Submit(1, Inference(prompt, Sampling(), format=form))
        self.preprocessor.put(submit)
        self.preprocessor.prepare(submit, is_quick=False)
        for _ in range(3000):
            if self.end:
                return self
            self.loop.iterate(idle_s=0)
        raise AssertionError((self.content, self.calls))


@pytest.fixture(params=[False, True], ids=["plain", "drafts"])
def worker(request, tmp_path, monkeypatch):
    """With drafts, a step may sample the tokens before a call begins, and those of the call."""
    monkeypatch.setattr(drafting, "_FORCED_STEP_S", -1.0)

    def make(*says, template=HERMES, **options):
        path = tmp_path / "scripts.json"
        script = {"tokens": list(says), "template": template, "drafts": request.param}
        path.write_text(json.dumps({"m": script}))
        spec = LoadSpec(engine="scripted", model="m", num_ctx=4096, slots=1)
        return Worker(scripted.load(spec, str(path), lambda _fraction: None), **options)

    return make


def call(name="get_tide", **arguments):
    return json.dumps({"name": name, "arguments": arguments})


def test_a_valid_call_is_unchanged(worker):
    asked = worker("So: ", "<tool_call>\n", call(place="Wyk"), "\n</tool_call>", " Done.").ask()

    assert asked.calls == [RIGHT]
    assert asked.content == "So:Done."


def test_a_model_that_calls_what_is_not_there_calls_what_is(worker):
    asked = worker("<tool_call>", *'{"name": "get_ebb", "arguments": {}}</tool_call>').ask()

    assert [name for name, _ in asked.calls] == ["get_tide"]
    assert asked.calls[0][1]["place"] in {"Wyk", "Husum"}


def test_arguments_are_those_of_the_schema(worker):
    says = ("<tool_call>", *call(place="Wyk", hours=3), "</tool_call>")

    assert worker(*says).ask().calls[0][1].keys() <= {"place", "days"}
    assert worker(*says, guards_calls=False).ask().calls == [
        ("get_tide", {"place": "Wyk", "hours": 3})
    ]


def test_each_of_several_calls_is_held_to_the_tools(worker):
    right = ("<tool_call>", call(place="Husum", days=2), "</tool_call>", "and ")
    wrong = ("<tool_call>", *call("no_tide"), "</tool_call>")
    asked = worker(*right, *wrong).ask()

    assert [name for name, _ in asked.calls] == ["get_tide"] * 2
    assert asked.calls[0][1] == {"place": "Husum", "days": 2}


@pytest.mark.parametrize("wrong", ["get_ebb", "get_tides"])
def test_a_call_that_is_like_one_before_is_held_to_the_tools_from_its_first_token(worker, wrong):
    text = f'I would say <tool-call>{{"name": "{wrong}", and so on. '
    says = (*text, *f'<tool_call>{{"name": "{wrong}", "arguments": {{}}}}</tool_call>')
    asked = worker(*says).ask()

    assert asked.content.startswith("I would say <tool-call>")
    assert [name for name, _ in asked.calls] == ["get_tide"]


def test_what_is_no_call_is_free(worker):
    text = 'I would say {"name": "get_ebb"} and <tool_cal> and [1, 2] and </tool_call>.'

    assert worker(*text).ask().content == text


@pytest.mark.parametrize("why", ["no tools", "tools are not to be used", "a format goes first"])
def test_nothing_is_held_to_tools_where_no_call_is_read(worker, why):
    says = ("<tool_call>", call("ebb"), "</tool_call>")
    options = {
        "no tools": {"tools": ()},
        "tools are not to be used": {"tool_choice": "none"},
        "a format goes first": {"form": True},
    }[why]
    asked = worker(*(says if why != "a format goes first" else ['"ebb"'])).ask(**options)

    assert asked.calls == []
    assert "ebb" in asked.content


def test_a_token_that_continues_into_an_invalid_call_leaves_it_unguarded(worker):
    asked = worker('<tool_call>{"name": "ebb', '", "arguments": {}}', "</tool_call>").ask()

    assert asked.calls == [("ebb", {})]


def test_an_answer_in_json_may_begin_like_a_call(worker):
    says = '{"name": "Bob", "age": 3, "tide": [{"name": "get_tide"}]}'

    assert worker(*says, template=LLAMA).ask().content == says


def test_a_call_without_a_mark_is_held_to_its_schema_once_its_name_is_known(worker):
    says = '{"name": "get_tide", "parameters": {"place": "Rome", "x": 1}}'
    asked = worker(*says, template=LLAMA).ask()

    assert asked.calls[0][0] == "get_tide"
    assert asked.calls[0][1]["place"] in {"Wyk", "Husum"}


def test_a_long_answer_in_json_is_not_read_again_and_again(worker):
    says = json.dumps({"text": "x" * (3 * UNDECIDED_LIMIT), "name": "Bob"})

    assert worker(*says, template=LLAMA).ask().content == says


def test_thoughts_are_free(worker):
    template = HERMES + "<think></think>"
    says = ("<think>", "Call <tool", "_cal>?", "</think>", "<tool_call>", *call("ebb"))
    asked = worker(*says, "</tool_call>", template=template).ask(chat_format=ChatFormatSpec())

    assert asked.thinking == "Call <tool_cal>?"
    assert [name for name, _ in asked.calls] == ["get_tide"]


@pytest.mark.parametrize(
    "text",
    [
        "Use `<tool_call>` to call a tool.",
        "The mark <tool_call> is what I write.",
        "First <tool_call>, then the rest.",
    ],
)
def test_prose_about_calls_is_free(worker, text):
    asked = worker(*text).ask()

    assert (asked.content, asked.calls) == (text, [])


def test_a_thought_about_calls_is_free(worker):
    template = HERMES + "<think></think>"
    says = ("<think>", *"I could use <tool_call> here, or not.", "</think>", "Hello.")
    asked = worker(*says, template=template).ask()

    assert asked.thinking == "I could use <tool_call> here, or not."
    assert (asked.content, asked.calls) == ("Hello.", [])


def test_a_call_that_is_not_guarded_is_not_joined_again_and_again():
    class Answer:
        call_number = 1
        looks = 0

        @property
        def open_call(self):
            self.looks += 1
            return OpenCall(CallSyntax(forms=("{call}",)), "x")

    answer = Answer()
    guard = CallGuard({}, ("get_tide",), None)
    for _ in range(10):
        guard.update(answer)

    assert answer.looks == 1
