"""Answers of real models in prescribed forms, however they are sampled."""

import json
import subprocess
import sys

import httpx
import pytest
from jsonschema import Draft202012Validator

from ollama_async.core.conversation import Inference, Prompt, Sampling
from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.engines.engine import Row
from ollama_async.workers.child.engines.llama_cpp import load
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from ollama_async.workers.load_spec import LoadSpec

pytestmark = pytest.mark.engine

SLOTS = 8
WORD = {"type": "string", "maxLength": 12}
SCHEMAS = {
    "person": {
        "type": "object",
        "properties": {
            "name": WORD,
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "email": {"anyOf": [WORD, {"type": "null"}]},
        },
        "required": ["name", "age"],
    },
    "list": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 5},
    "tree": {
        "$defs": {
            "leaf": {"type": "object", "properties": {"is": WORD}, "required": ["is"]},
            "node": {
                "type": "object",
                "properties": {"left": {"$ref": "#/$defs/leaf"}, "right": {"$ref": "#/$defs/leaf"}},
                "required": ["left", "right"],
            },
        },
        "$ref": "#/$defs/node",
    },
    "number": {"type": "number", "minimum": -1, "maximum": 1.5, "multipleOf": 0.25},
    "date": {"type": "string", "format": "date"},
}
HOT = [
    Sampling(temperature=1.5),
    Sampling(temperature=1.5, top_k=0, top_p=1.0),
    Sampling(temperature=1.5, repeat_penalty=1.5, top_k=5),
    Sampling(temperature=0),
]


def load_demo(_folder, demo_model):
    return demo_model


def write_sentencepiece(folder, _demo_model):
    """Its tokenizer puts a blank in front of every text, and so do most of its tokens."""
    return write_tiny_model(folder / "tiny.gguf")


@pytest.fixture(scope="module", params=[load_demo, write_sentencepiece])
def engine(request, tmp_path_factory, demo_model):
    path = request.param(tmp_path_factory.mktemp("model"), demo_model)
    spec = LoadSpec(
        engine="llama_cpp", model=str(path), num_ctx=512, slots=SLOTS, batch_size=256, threads=1
    )
    engine = load(spec, lambda _fraction: None)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def grammars(engine):
    return ConstraintFactory(engine)


def answers(engine, constraints, sampling, prompt="the people", most=400):
    """One answer for each constraint, all in one batch."""
    tokens = engine.tokenize(prompt, add_special=True, parse_special=True)
    said = {slot: [] for slot in range(len(constraints))}
    for slot, constraint in enumerate(constraints):
        engine.trim(slot, 0)
        engine.begin(slot, sampling, tokens, constraint)
    rows = [Row(slot, tokens, 0, samples=True) for slot in said]
    while rows:
        for row, token in zip(rows, engine.step(rows), strict=True):
            said[row.slot].append(token)
        going = [
            row.slot
            for row in rows
            if not (engine.is_end(said[row.slot][-1]) or constraints[row.slot].is_over)
        ]
        rows = [
            Row(slot, said[slot][-1:], len(tokens) + len(said[slot]) - 1, True) for slot in going
        ]
        assert all(len(said[slot]) < most for slot in going)
    assert not any(constraint.failure for constraint in constraints)
    return [b"".join(map(engine.piece, tokens)).decode() for tokens in said.values()]


@pytest.mark.parametrize("sampling", HOT, ids=["hot", "hotter", "penalized", "greedy"])
@pytest.mark.parametrize("name", SCHEMAS)
def test_any_sampled_answer_is_valid(engine, grammars, name, sampling):
    schema = SCHEMAS[name]
    inference = Inference(Prompt(), sampling, format=schema)
    constraints = [grammars.constrain(inference, "", Delimiters(), {}) for _ in range(SLOTS)]

    for answer in answers(engine, constraints, sampling):
        Draft202012Validator(schema).validate(json.loads(answer))
        assert answer == answer.strip()


def test_what_is_prescribed_to_the_letter_has_nothing_in_front(engine, grammars):
    for wanted in ("the people", " the people", "thepeople", "世界", "👩‍👩‍👧", 'a "b" \\ c'):
        inference = Inference(Prompt(), Sampling(), format={"const": {"the": wanted}})
        constraints = [grammars.constrain(inference, "", Delimiters(), {}) for _ in range(2)]

        for answer in answers(engine, constraints, HOT[0]):
            assert json.loads(answer) == {"the": wanted}
            assert answer.startswith("{")


def test_thoughts_are_free_and_the_rest_is_not(engine, grammars):
    marks = Delimiters(thoughts=("<think>", "</think>"), begins_thinking=True)
    inference = Inference(Prompt(), Sampling(), format={"const": [1]})
    constraint = grammars.constrain(inference, "", marks, {})
    tokens = engine.tokenize("so {[ the day </think>", add_special=False, parse_special=False)
    for token in tokens:
        assert constraint.allows(token)
        constraint.accept(token)
    left = {bytes(engine.piece(token))[:1] for token in constraint.allowed()}
    assert left <= {b"[", b" ", b"\n", b"\t", b"\r"}
    assert b"[" in left


def ask(server, path="/api/generate", **body):
    body = {"model": "demo", "stream": False} | body
    return httpx.post(f"{server.url}{path}", json=body, timeout=50)


def test_json_mode_answers_with_an_object(demo_server):
    for seed in range(5):
        options = {"temperature": 1.5, "seed": seed, "num_predict": 300}
        answer = ask(demo_server, prompt="Hi", format="json", options=options).json()
        if answer["done_reason"] == "stop":
            assert isinstance(json.loads(answer["response"]), dict)
        else:
            assert answer["response"].startswith("{")


def test_a_chat_keeps_to_a_schema(demo_server):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    answer = ask(demo_server, "/api/chat", messages=messages, format=SCHEMAS["person"]).json()

    assert answer["done_reason"] == "stop"
    Draft202012Validator(SCHEMAS["person"]).validate(json.loads(answer["message"]["content"]))


def test_a_stream_keeps_to_a_schema(demo_server):
    lines = ask(demo_server, prompt="Hi", format=SCHEMAS["list"], stream=True).text.splitlines()

    text = "".join(json.loads(line)["response"] for line in lines)
    Draft202012Validator(SCHEMAS["list"]).validate(json.loads(text))


PROMPTS = [
    "Hi",
    "What is the capital of France?",
    "Tell me about yourself.",
    "How do I boil an egg?",
    "Give me three colors.",
    "What is 7 times 8?",
    "Name a person and her age.",
    "Why is the sky blue?",
]
REPLY = {"type": "object", "properties": {"reply": WORD}, "required": ["reply"]}


def ways_to_ask(text):
    messages = [{"role": "user", "content": text}]
    begun = [*messages, {"role": "assistant", "content": "In short: "}]
    return {
        "generate": ("/api/generate", {"prompt": text}),
        "chat": ("/api/chat", {"messages": messages}),
        "an answer begun": ("/api/chat", {"messages": begun}),
    }


@pytest.mark.parametrize("way", ways_to_ask(""))
def test_forbidden_thoughts_are_not_in_the_way(demo_server, way):
    for prompt in PROMPTS:
        path, body = ways_to_ask(prompt)[way]
        answer = ask(demo_server, path, **body, format=REPLY, think=False).json()

        said = answer["message"] if path == "/api/chat" else answer
        text = said["content"] if path == "/api/chat" else said["response"]
        assert "thinking" not in said
        assert text.startswith("{")
        Draft202012Validator(REPLY).validate(json.loads(text))


@pytest.mark.parametrize("asked", [{}, {"think": True}, {"think": "low"}])
def test_thoughts_come_before_the_form_where_they_are_allowed(demo_server, asked):
    messages = [{"role": "user", "content": "What is 7 times 8?"}]
    answer = ask(demo_server, "/api/chat", messages=messages, format=REPLY, **asked).json()

    assert answer["message"]["thinking"]
    Draft202012Validator(REPLY).validate(json.loads(answer["message"]["content"]))


def test_a_raw_prompt_has_no_thoughts(demo_server):
    answer = ask(demo_server, prompt="<think>\n", raw=True, format=REPLY).json()

    assert "thinking" not in answer
    Draft202012Validator(REPLY).validate(json.loads(answer["response"]))


def test_the_command_line_keeps_thoughts_out_of_the_form(demo_server):
    for prompt in PROMPTS:
        command = [sys.executable, "-P", "-m", "ollama_async.cli.main", "run", "demo", prompt]
        done = subprocess.run(
            [*command, "--think=false", "--format", json.dumps(REPLY), "--nowordwrap"],
            env=demo_server.environment,
            capture_output=True,
            check=True,
            timeout=50,
        )

        Draft202012Validator(REPLY).validate(json.loads(done.stdout))


def test_a_keyword_that_cannot_be_enforced_is_named(demo_server):
    answer = ask(demo_server, prompt="Hi", format={"type": "string", "not": {"const": "x"}})

    assert answer.status_code == 400
    assert '"not"' in answer.json()["error"]
