"""``/api/generate`` and ``/api/chat``: what reaches the queue, and every refusal before it."""

# ruff: noqa: E501  # one refusal per line reads as a table
from __future__ import annotations

import json
import math

import pytest

from ollama_async.core.conversation import Message
from ollama_async.core.errors import Busy, ContextExceeded, LoadFailed
from ollama_async.gateway.body import OFF_LOOP_BYTES, BodyProcessor

GENERATE = "/api/generate"
CHAT = "/api/chat"


@pytest.fixture
def post(session, url):
    """``await post(path, **fields)`` → (status, decoded body)."""

    async def post(path: str, body: object = None, **fields):
        data = body if isinstance(body, bytes) else json.dumps(fields).encode()
        async with session.post(url + path, data=data) as response:
            text = await response.read()
            lines = [json.loads(line) for line in text.splitlines()]
            return response, lines[0] if len(lines) == 1 else lines

    return post


def answer_ok(job):
    job.start().send("ok").end(context=[1, 2])


async def test_generate_asks_the_model_and_streams(post, backend):
    backend.script = answer_ok

    response, lines = await post(GENERATE, model="M:Latest", prompt="hi")

    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert [line["response"] for line in lines] == ["ok", ""]
    assert {line["model"] for line in lines} == {"M:Latest"}
    job = (await backend.job()).job
    assert job.target.name == "m:latest"
    assert job.client == "127.0.0.1"
    assert job.keep_alive_s is None
    assert job.task.prompt.messages == [Message(role="user", content="hi")]
    assert job.task.returns_context


async def test_generate_without_streaming_is_one_object_in_gos_order(post, backend):
    backend.script = answer_ok

    response, body = await post(GENERATE, model="m", prompt="hi", stream=False)

    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert list(body) == [
        "model",
        "created_at",
        "response",
        "done",
        "done_reason",
        "context",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ]
    assert (body["response"], body["context"]) == ("ok", [1, 2])


async def test_chat_streams_messages(post, backend):
    backend.script = answer_ok
    messages = [{"role": "System", "content": "be brief"}, {"role": "user", "content": "hi"}]

    _, lines = await post(CHAT, model="m", messages=messages)

    assert [line["message"] for line in lines] == [
        {"role": "assistant", "content": "ok"},
        {"role": "assistant", "content": ""},
    ]
    assert list(lines[1]) == [
        "model",
        "created_at",
        "message",
        "done",
        "done_reason",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ]
    messages = (await backend.job()).job.task.prompt.messages
    assert [(turn.role, turn.content) for turn in messages] == [
        ("system", "be brief"),
        ("user", "hi"),
    ]


async def test_raw_goes_through_untouched_and_without_context(post, backend):
    backend.script = lambda job: job.start().end()

    await post(GENERATE, model="m", prompt="<s>hi", raw=True)

    inference = (await backend.job()).job.task
    assert inference.prompt.raw == "<s>hi"
    assert not inference.prompt.messages
    assert not inference.returns_context


async def test_options_reach_load_and_sampling(post, backend):
    backend.script = answer_ok
    options = {"num_ctx": 2, "temperature": 0, "top_k": 40.9, "stop": ["x"], "use_mmap": False}

    await post(
        GENERATE,
        model="m",
        prompt="hi",
        options=options,
        keep_alive=-1,
        shift=False,
        truncate=False,
    )

    job = (await backend.job()).job
    assert (job.load_options.num_ctx, job.load_options.use_mmap, job.load_options.num_batch) == (
        4,
        None,
        None,
    )
    assert job.keep_alive_s == math.inf
    assert job.task.num_ctx == 4
    assert not job.task.shift
    assert not job.task.prompt.truncate
    sampling = job.task.sampling
    assert (sampling.temperature, sampling.top_k, sampling.stop) == (0.0, 40, ["x"])


async def test_a_context_continues_an_older_answer(post, backend):
    backend.script = answer_ok

    await post(GENERATE, model="m", prompt="hi", system="s", context=[5, 6])

    prompt = (await backend.job()).job.task.prompt
    assert prompt.context == [5, 6]
    assert [turn.role for turn in prompt.messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("path", "fields", "answer"),
    [
        (GENERATE, {}, {"response": ""}),
        (CHAT, {"messages": []}, {"message": {"role": "assistant", "content": ""}}),
    ],
)
async def test_an_empty_prompt_loads_the_model(post, backend, path, fields, answer):
    backend.script = lambda job: job.start().end("load")

    _, body = await post(path, model="m", **fields)

    assert (await backend.job()).job.task is None
    assert body.pop("created_at")
    assert body == {"model": "m", **answer, "done": True, "done_reason": "load"}


@pytest.mark.parametrize("keep_alive", [0, "0", "0s"])
@pytest.mark.parametrize("path", [GENERATE, CHAT])
async def test_an_empty_prompt_with_keep_alive_0_unloads(post, backend, path, keep_alive):
    _, body = await post(path, model="m", keep_alive=keep_alive)

    assert backend.unloaded == ["scripted:m"]
    assert backend.jobs.empty()
    assert (body["done"], body["done_reason"]) == (True, "unload")


FULL = "registry.ollama.ai/library/m:latest"
REFUSALS = [
    (GENERATE, {"model": "m", "prompt": "x", "top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    (GENERATE, {"model": "no", "top_logprobs": -1}, 400, "top_logprobs must be between 0 and 20"),
    (GENERATE, {"prompt": "x"}, 404, "model '' not found"),
    (CHAT, {}, 400, "model is required"),
    (GENERATE, {"model": "No/Such"}, 404, "model 'No/Such' not found"),
    (CHAT, {"model": "nosuch"}, 404, "model 'nosuch' not found"),
    (CHAT, {"model": "a b"}, 400, "invalid model name"),
    (GENERATE, {"model": "m", "prompt": "x", "raw": True, "system": "s"}, 400, "raw mode does not support template, system, or context"),
    (GENERATE, {"model": "m", "prompt": "x", "think": True}, 400, '"m" does not support thinking'),
    (CHAT, {"model": "m:latest", "think": "high"}, 400, '"m:latest" does not support thinking'),
    (GENERATE, {"model": "m", "think": "hi"}, 400, 'invalid think value: "hi" (must be "high", "medium", "low", "max", true, or false)'),
    (GENERATE, {"model": "m", "prompt": "x", "suffix": "y"}, 400, f"{FULL} does not support insert"),
    (CHAT, {"model": "m", "messages": [{"role": "user"}], "tools": [{}]}, 400, f"{FULL} does not support tools"),
    (GENERATE, {"model": "m", "prompt": "x", "images": ["aGk="]}, 400, f"{FULL} does not support vision"),
    (CHAT, {"model": "m", "messages": [{"role": "user", "images": ["aGk="]}]}, 400, f"{FULL} does not support vision"),
    (GENERATE, {"model": "m", "prompt": "x", "images": ["!"]}, 400, "illegal base64 data at input byte 0"),
    (GENERATE, {"model": "m", "prompt": "x", "raw": True, "template": "t"}, 400, "raw mode does not support template, system, or context"),
    (GENERATE, {"model": "m", "prompt": "x", "format": "xml"}, 400, 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'),
    (CHAT, {"model": "m", "format": 5}, 400, 'invalid format: "5"; expected "json" or a valid JSON Schema object'),
    (CHAT, {"model": "m", "format": ["é"]}, 400, 'invalid format: "[\\"é\\"]"; expected "json" or a valid JSON Schema object'),
    (CHAT, {"model": "m", "format": True}, 400, 'invalid format: "true"; expected "json" or a valid JSON Schema object'),
    (GENERATE, {"model": "m", "prompt": "x", "options": {"top_k": "1"}}, 500, 'option "top_k" must be of type integer'),
    (CHAT, {"model": "m", "options": {"top_p": 2}}, 400, 'option "top_p" must be between 0 and 1'),
    (CHAT, {"model": "no", "tools": [5]}, 400, "json: cannot unmarshal number into Go struct field ChatRequest.tools of type api.Tool"),
    (CHAT, {"model": "no", "tools": [{"function": {"name": 5}}]}, 400, "json: cannot unmarshal number into Go struct field ChatRequest.tools.function.name of type string"),
    (CHAT, {"model": "no", "tools": [{"function": {"parameters": {"properties": []}}}]}, 400, "json: cannot unmarshal array into Go struct field ChatRequest.tools.function.parameters.properties of type map[string]api.ToolProperty"),
    (CHAT, {"model": "no", "tools": [{"function": {"parameters": {"required": [None], "type": ["object"]}, "description": None, "strict": 1}}]}, 404, "model 'no' not found"),
    (GENERATE, {"model": "m", "keep_alive": "300"}, 400, 'time: missing unit in duration "300"'),
    (GENERATE, {"model": 5}, 400, "json: cannot unmarshal number into Go struct field GenerateRequest.model of type string"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "fields", "status", "text"), REFUSALS)
async def test_unsupported_requests_are_refused_with_ollamas_texts(
    post, backend, path, fields, status, text
):
    response, body = await post(path, **fields)

    assert (response.status, body) == (status, {"error": text})
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert backend.jobs.empty()


@pytest.mark.parametrize("path", [GENERATE, CHAT, "/api/create"])
@pytest.mark.parametrize("data", [b"", b"  \n"])
async def test_an_empty_body_is_refused(post, path, data):
    response, body = await post(path, data)

    assert (response.status, body) == (400, {"error": "missing request body"})


async def test_bad_json_is_refused_with_gos_texts(post):
    response, body = await post(CHAT, b"x")

    assert response.status == 400
    assert body == {"error": "invalid character 'x' looking for beginning of value"}


async def test_a_full_queue_is_503_with_retry_after(post, backend):
    backend.refusal = Busy(retry_after_s=7)

    response, body = await post(CHAT, model="m", messages=[{"role": "user", "content": "x"}])

    assert response.status == 503
    assert response.headers["Retry-After"] == "7"
    assert body == {"error": "server busy, please try again.  maximum pending requests exceeded"}


@pytest.mark.parametrize(
    ("error", "status"), [(LoadFailed("no"), 500), (ContextExceeded("long"), 400)]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_any_text_is_an_http_status(post, backend, error, status, stream):
    backend.script = lambda job: job.fail(error)

    response, body = await post(GENERATE, model="m", prompt="x", stream=stream)

    assert (response.status, body) == (status, {"error": error.message})


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (GENERATE, {"model": " " * 2000 + "m", "prompt": "x"}),
        (GENERATE, {"model": "m" * 2000, "prompt": "x"}),
        (GENERATE, {"model": "m", "prompt": "x", "format": "f" * 20_000}),
        (GENERATE, {"model": "m", "prompt": "x", "format": ["f" * 20_000] * 9}),
        (GENERATE, {"model": "m", "prompt": "x", "format": [[]] * 20_000}),
        (GENERATE, {"model": "m", "prompt": "x", "think": "t" * 20_000}),
        (GENERATE, {"model": "m", "prompt": "x", "keep_alive": "1" * 20_000}),
        (CHAT, {"model": "m", "options": {"num_ctx": "9" * 20_000}}),
        (CHAT, {"model": "m", "options": {"seed": 0}, "top_logprobs": "t" * 20_000}),
    ],
)
async def test_an_error_quotes_only_the_beginning(post, path, fields):
    response, answer = await post(path, **fields)

    assert response.status in {400, 500}
    assert len(answer["error"]) < 500


async def test_the_log_names_few_of_many_unknown_options(post, backend, caplog):
    backend.script = answer_ok
    options = {"o" * 300 + str(number): number for number in range(2000)}

    response, _ = await post(GENERATE, model="m", prompt="x", options=options)

    assert response.status == 200
    (entry,) = [each for each in caplog.records if "invalid option" in each.getMessage()]
    assert len(entry.getMessage()) < 500


@pytest.mark.parametrize("prompt", ["x", "x" * (OFF_LOOP_BYTES + 1)])
async def test_one_call_makes_the_job_of_a_request_for_a_cached_model(
    post, backend, monkeypatch, prompt
):
    """Decoding, checks and job share one call, and so one thread and one turn."""
    backend.script = answer_ok
    sizes, run = [], BodyProcessor.run

    def counted(self, client, size, *call):
        sizes.append(size)
        return run(self, client, size, *call)

    monkeypatch.setattr(BodyProcessor, "run", counted)
    response, _ = await post(CHAT, model="m", messages=[{"role": "user", "content": prompt}])

    assert response.status == 200
    assert len(sizes) == 1
    assert (await backend.job()).job.task.prompt.messages[0].content == prompt
