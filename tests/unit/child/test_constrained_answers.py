"""From a request with a format to the end of its answer, with a scripted model."""

import json

import pytest

from ollama_async.core.conversation import Inference, Message, Prompt, Sampling, Thought
from ollama_async.prompts import parsers
from ollama_async.prompts.go_renderer import GoRenderer
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child import drafting
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines import scripted
from ollama_async.workers.child.mailbox import Mailbox
from ollama_async.workers.child.preprocessor import Preprocessor, RequestPreparer
from ollama_async.workers.child.prompt_encoder import BoundChatFormat
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import Deltas, Done, Failed, Submit
from tests.unit.child.loop_harness import EagerLookup

CALLS = Delimiters(calls=("<call>", "</call>"))


class ChatFormat:
    """Plays :class:`ChatFormatCache` as well; its calls stay in the text."""

    special_tokens = ()
    render = GoRenderer("{{ .Prompt }}").render

    def get_or_make(self, _spec, *_rest):
        return BoundChatFormat(self, {})

    get = get_or_make

    def start(self, _prompt, _rendered):
        return None

    def delimiters(self, _prompt, _rendered):
        return CALLS


class Format(ChatFormat):
    """A format of answers, behind a prompt that ends with ``end``."""

    def __init__(self, format_, end):
        self.start, self.delimiters = format_.start, format_.delimiters
        self.render = GoRenderer("{{ .Prompt }}" + end).render


class Harness:
    def __init__(self, engine, chat_format):
        self.engine = engine
        self.mailbox = Mailbox()
        unlimited = lambda *_limit: lambda action: action()  # noqa: E731
        self.preprocessor = Preprocessor(
            RequestPreparer(engine, chat_format, unlimited), self.mailbox
        )
        lookup = EagerLookup(is_invariant=True) if engine.facts.can_draft else None
        self.loop = EngineLoop(engine, self.mailbox, self.hear, BatchPlanner(64), lookup=lookup)
        self.text, self.thoughts, self.end = "", "", None

    def hear(self, messages):
        for message in messages:
            if isinstance(message, Deltas):
                for _, piece in message.items:
                    if isinstance(piece, Thought):
                        self.thoughts += piece.text
                    else:
                        self.text += piece
            elif isinstance(message, (Done, Failed)):
                self.end = message

    def ask(self, form=None, *, num_predict=-1, stop=(), **prompt):
        prompt = Prompt([Message("user", "Hi")], **prompt)
        sampling = Sampling(num_predict=num_predict, stop=list(stop))
        inference = Inference(prompt, sampling, format=form)
        submit = Submit(1, inference)
        self.preprocessor.put(submit)
        self.preprocessor.prepare(submit, is_quick=False)
        for _ in range(2000):
            if self.end:
                return self.end
            self.loop.iterate(idle_s=0)
        raise AssertionError(self.text)


@pytest.fixture
def harness(tmp_path):
    def make(says, chat_format=None, **script):
        path = tmp_path / "scripts.json"
        path.write_text(json.dumps({"m": {"tokens": says, **script}}))
        spec = LoadSpec(engine="scripted", model="m", num_ctx=256, slots=1)
        return Harness(
            scripted.load(spec, str(path), lambda _fraction: None), chat_format or ChatFormat()
        )

    return make


def test_an_answer_in_the_form_is_unchanged(harness):
    harness = harness(['{"a"', ': "yes"', "}"])

    assert harness.ask("json").reason == "stop"
    assert harness.text == '{"a": "yes"}'


def test_an_answer_ends_when_its_form_is_complete(harness):
    harness = harness(['{"a": 1}', " And now something else."])

    end = harness.ask("json")
    assert harness.text == '{"a": 1}'
    assert (end.reason, end.usage.answer) == ("stop", 1)


def test_an_answer_of_one_token_can_be_complete(harness):
    harness = harness(["true", "!"])

    assert harness.ask({"type": "boolean"}).reason == "stop"
    assert harness.text == "true"


def test_an_answer_in_another_form_becomes_one_in_the_form(harness):
    harness = harness("Sure! Here is some JSON for you")

    assert harness.ask({"properties": {"a": {}}, "required": ["a"]}).reason == "stop"
    assert list(json.loads(harness.text)) == ["a"]


def test_the_end_of_a_script_is_not_the_end_of_the_form(harness):
    harness = harness(['{"a": [1, 2'])

    assert harness.ask("json").reason == "stop"
    assert json.loads(harness.text) == {"a": [1, 2]}


def test_a_limit_goes_before_the_form(harness):
    harness = harness(['{"a"', ': "yes"', "}"])

    assert harness.ask("json", num_predict=2).reason == "length"
    assert harness.text == '{"a": "yes"'


def test_a_stop_string_goes_before_the_form(harness):
    harness = harness(['{"a": "yes', ', no"', "}"])

    assert harness.ask("json", stop=[", "]).reason == "stop"
    assert harness.text == '{"a": "yes'


THINKING = parsers.detected("<think></think>")
GPT_OSS = "<|start|>assistant"


@pytest.mark.parametrize(
    ("format_", "end", "says"),
    [
        (THINKING, "", "<think>Hm.</think>{}"),
        (THINKING, "<think>\n", "Hm.</think>{}"),
        (THINKING, "<think>\n\n</think>\n\n", "<think>Hm.</think>{}"),
        (parsers.named("olmo3-think"), "<think>", "Hm.</think>{}"),
        (parsers.named("qwen3-thinking"), "<think>\n", "Hm.</think>{}"),
        (parsers.named("harmony"), GPT_OSS, "<|channel|>analysis<|message|>Hm.<|end|>"),
        (parsers.named("harmony"), GPT_OSS, "Sure"),
        (parsers.named("glimmer"), GPT_OSS, " to=self<|message|>Hm.<|eom|>"),
    ],
)
def test_a_model_that_may_not_think_answers_in_the_form(harness, format_, end, says):
    harness = harness(says, Format(format_, end))

    assert harness.ask({"properties": {"a": {}}, "required": ["a"]}, think=False).reason == "stop"
    assert list(json.loads(harness.text)) == ["a"]
    assert harness.text.startswith("{")
    assert harness.thoughts == ""


@pytest.mark.parametrize(
    ("format_", "end", "says"),
    [
        (THINKING, "", "<think>Hm.</think>{}"),
        (THINKING, "<think>\n", "Hm.</think>{}"),
        (
            parsers.named("harmony"),
            GPT_OSS,
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{}",
        ),
    ],
)
@pytest.mark.parametrize("think", [None, True, "high"])
def test_a_model_that_may_think_does_so_first(harness, format_, end, says, think):
    harness = harness(says, Format(format_, end))

    assert harness.ask("json", think=think).reason == "stop"
    assert (harness.thoughts, harness.text) == ("Hm.", "{}")


def test_a_forced_call(harness):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}}
    harness = harness("I would rather not.")

    assert harness.ask(tools=[tool], tool_choice="f").reason == "stop"
    inner = harness.text.removeprefix("<call>").removesuffix("</call>")
    assert json.loads(inner) == {"name": "f", "arguments": {}}


def test_a_form_that_cannot_be_enforced_is_refused(harness):
    end = harness("x").ask({"not": {}})

    assert end.code == "bad_request"
    assert '"not"' in end.message


def test_an_answer_that_no_token_can_continue_fails(harness):
    harness = harness(["[", "]"])
    harness.engine._pieces[:256] = [b""] * 256  # a vocabulary without single letters

    end = harness.ask({"type": "array", "items": {"const": 1}, "minItems": 1})

    assert end.code == "engine_failed"
    assert "the format cannot be kept" in end.message


RECORDS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"number": {"type": "integer"}, "kind": {"enum": ["small", "large"]}},
        "required": ["number", "kind"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("says", ["Sure!", '[{"number": 17, "kind": "small"}, {"number": 4, "kind'])
def test_drafts_of_what_a_form_prescribes_change_nothing(harness, monkeypatch, says):
    monkeypatch.setattr(drafting, "_FORCED_STEP_S", -1.0)
    pieces = list(says) * 3
    plain, drafted = harness(pieces), harness(pieces, drafts=True)
    for each in (plain, drafted):
        each.ask(RECORDS, num_predict=100)
    assert drafted.text == plain.text
    assert drafted.end.usage.answer == plain.end.usage.answer
    assert drafted.end.reason == plain.end.reason
    assert says == "Sure!" or drafted.end.usage.accepted > 0
