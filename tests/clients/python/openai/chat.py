"""`openai` for Python: chat completions."""

import base64
import json

import openai
from checks import PIXEL, SERVER, check, raises, run, silence
from pydantic import BaseModel

client = openai.OpenAI(base_url=f"{SERVER}/v1", api_key="unused", max_retries=0)

SKY = [{"role": "user", "content": "Why is the sky blue?"}]
WEATHER = [{"role": "user", "content": "What is the weather today in Paris?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather for a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The name of the city"}},
            "required": ["city"],
        },
    },
}


class Sky(BaseModel):
    morning: str
    noon: str


SKY_AS_JSON = [
    {
        "role": "user",
        "content": "What color is the sky at different times of the day? Respond using JSON",
    }
]


@check
def an_answer():
    answer = client.chat.completions.create(model="demo", temperature=0, messages=SKY)

    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == "demo"
    (choice,) = answer.choices
    assert "Rayleigh scattering" in choice.message.content
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "stop")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens > 10
    assert usage.prompt_tokens_details.cached_tokens >= 0


@check
def a_stream():
    parts = [
        *client.chat.completions.create(model="demo", temperature=0, messages=SKY, stream=True)
    ]

    assert len(parts) > 5
    assert len({part.id for part in parts}) == 1
    assert all(part.object == "chat.completion.chunk" for part in parts)
    assert all(part.usage is None for part in parts)
    choices = [part.choices[0] for part in parts]
    assert choices[0].delta.role == "assistant"
    assert "Rayleigh scattering" in "".join(choice.delta.content or "" for choice in choices)
    assert [choice.finish_reason for choice in choices[-2:]] == [None, "stop"]


@check
def usage_in_a_stream():
    *parts, last = client.chat.completions.create(
        model="demo",
        temperature=0,
        messages=SKY,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert last.choices == []
    assert last.usage.completion_tokens > 10
    assert all(part.usage is None for part in parts)


@check
def different_ids():
    answers = [client.chat.completions.create(model="story", messages=SKY) for _ in range(3)]
    assert len({answer.id for answer in answers}) == 3


@check
def stream_helper():
    """It puts the parts together and tells of each as an event."""
    with client.chat.completions.stream(model="demo", temperature=0, messages=SKY) as stream:
        said = "".join(event.delta for event in stream if event.type == "content.delta")
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == said
    assert "Rayleigh" in said


@check
def roles_and_parts_of_messages():
    messages = [
        {"role": "developer", "content": "You are a pirate. Answer like a pirate."},
        {"role": "user", "content": [{"type": "text", "text": "who are you?"}]},
    ]
    answer = client.chat.completions.create(
        model="demo", temperature=0, messages=messages, user="somebody"
    )
    assert "Arr" in answer.choices[0].message.content


@check
def a_tool():
    def ask(messages):
        return client.chat.completions.create(
            model="demo", temperature=0, messages=messages, tools=[TOOL], reasoning_effort="none"
        )

    messages = [*WEATHER]
    answer = ask(messages)

    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.id
    assert call.function.name == "get_current_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}

    messages += [
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "22 degrees in Paris"},
    ]
    answer = ask(messages)
    assert "22" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


@check
def two_calls_at_once():
    answer = client.chat.completions.create(model="two-calls", messages=WEATHER, tools=[TOOL_2])
    calls = answer.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Paris", "Rome"]
    assert len({call.id for call in calls}) == 2


@check
def two_calls_in_a_stream():
    stream = client.chat.completions.create(
        model="two-calls", messages=WEATHER, tools=[TOOL_2], stream=True
    )
    calls, reasons = {}, []
    for part in stream:
        for delta in part.choices[0].delta.tool_calls or []:
            call = calls.setdefault(delta.index, {"id": delta.id, "arguments": ""})
            call["arguments"] += delta.function.arguments or ""
        reasons.append(part.choices[0].finish_reason)
    assert sorted(calls) == [0, 1]
    assert [json.loads(calls[at]["arguments"])["city"] for at in (0, 1)] == ["Paris", "Rome"]
    assert calls[0]["id"] != calls[1]["id"]
    assert reasons[-1] == "tool_calls"


TOOL_2 = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


@check
def tool_choice():
    def calls(choice, **more):
        answer = client.chat.completions.create(
            model="demo",
            temperature=0,
            messages=SKY,
            tools=[TOOL, TOOL_2],
            tool_choice=choice,
            **more,
        )
        return [call.function.name for call in answer.choices[0].message.tool_calls or []]

    assert calls("none") == []
    assert len(calls("required")) > 0
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert set(calls(named)) == {"get_weather"}
    assert len(calls("required", parallel_tool_calls=False)) == 1


@check
def json_mode():
    answer = client.chat.completions.create(
        model="demo", temperature=0, messages=SKY_AS_JSON, response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


@check
def parse_with_pydantic():
    answer = client.chat.completions.parse(
        model="demo", temperature=0, messages=SKY_AS_JSON, response_format=Sky
    )
    assert isinstance(answer.choices[0].message.parsed, Sky)
    assert answer.choices[0].message.refusal is None


@check
def parse_a_tool_with_pydantic():
    tool = openai.pydantic_function_tool(Sky, name="Sky")
    answer = client.chat.completions.parse(model="calls-sky", messages=SKY, tools=[tool])
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.parsed_arguments == Sky(morning="orange", noon="blue")


@check
def parse_what_was_cut_off():
    with raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model="demo",
            temperature=0,
            messages=SKY_AS_JSON,
            response_format=Sky,
            max_completion_tokens=3,
        )


@check
def a_refusal_is_text():
    message = client.chat.completions.create(model="refuses", messages=SKY).choices[0].message
    assert message.content == "I am sorry, but I cannot help with that."
    assert message.refusal is None


@check
def logprobs():
    answer = client.chat.completions.create(
        model="demo",
        messages=SKY,
        logprobs=True,
        top_logprobs=3,
        max_completion_tokens=5,
        reasoning_effort="none",
    )
    tokens = answer.choices[0].logprobs.content
    assert "".join(each.token for each in tokens) == answer.choices[0].message.content
    for each in tokens:
        assert each.logprob <= 0
        assert len(each.top_logprobs) == 3
        assert bytes(each.bytes).decode() == each.token


@check
def several_choices():
    answer = client.chat.completions.create(model="demo", messages=SKY, n=3, temperature=0)
    assert sorted(choice.index for choice in answer.choices) == [0, 1, 2]
    assert all("Rayleigh" in choice.message.content for choice in answer.choices)

    texts = {}
    stream = client.chat.completions.create(
        model="demo", temperature=0, messages=SKY, n=2, stream=True
    )
    for part in stream:
        for choice in part.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    assert sorted(texts) == [0, 1]
    assert all("Rayleigh" in text for text in texts.values())


@check
def sampling_stop_and_length():
    def said(**fields):
        return client.chat.completions.create(
            model="demo", messages=SKY, reasoning_effort="none", **({"temperature": 0} | fields)
        ).choices[0]

    assert said(seed=1, temperature=1.2).message.content == (
        said(seed=1, temperature=1.2).message.content
    )
    assert said(stop=["Rayleigh"]).message.content.strip().endswith("because of")
    assert said(stop="Rayleigh").finish_reason == "stop"
    assert said(max_completion_tokens=3).finish_reason == "length"
    assert said(max_tokens=3).finish_reason == "length"
    assert said(top_p=0.5, frequency_penalty=0.1, presence_penalty=0.1).message.content


@check
def reasoning():
    thought = (
        client.chat.completions.create(model="thinks", messages=SKY, reasoning_effort="high")
        .choices[0]
        .message
    )
    assert thought.content.strip() == "It is four."
    assert thought.reasoning.strip() == "Two and two."

    stream = client.chat.completions.create(
        model="thinks", messages=SKY, reasoning_effort="high", stream=True
    )
    deltas = [part.choices[0].delta for part in stream]
    assert "".join(getattr(delta, "reasoning", "") or "" for delta in deltas).strip() == (
        "Two and two."
    )
    quiet = client.chat.completions.create(
        model="demo", temperature=0, messages=SKY, reasoning_effort="none"
    )
    assert not getattr(quiet.choices[0].message, "reasoning", None)


@check
def images():
    def tokens(*parts):
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}
        ]
        answer = client.chat.completions.create(model="sees", messages=messages, max_tokens=3)
        assert answer.usage.completion_tokens == 3
        return answer.usage.prompt_tokens

    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    assert tokens(image, image) > tokens(image) + 8 > tokens() + 16


@check
def a_recording():
    audio = {"data": base64.b64encode(silence()).decode(), "format": "wav"}
    parts = [
        {"type": "text", "text": "What is said?"},
        {"type": "input_audio", "input_audio": audio},
    ]
    answer = client.chat.completions.create(
        model="hears", messages=[{"role": "user", "content": parts}], max_tokens=3
    )
    assert answer.usage.prompt_tokens > 300


@check
def images_that_are_refused():
    """A model that cannot see refuses them; none is fetched from elsewhere."""

    def ask(model, url):
        image = {"type": "image_url", "image_url": {"url": url}}
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": [image]}])

    with raises(openai.BadRequestError, status_code=400):
        ask("demo", f"data:image/png;base64,{PIXEL}")
    with raises(openai.BadRequestError, status_code=400):
        ask("sees", "http://127.0.0.1:9/image.png")
    with raises(openai.BadRequestError, status_code=400):
        ask("sees", "data:image/png;base64,AAAA")


@check
def stream_helper_with_a_schema_and_tools():
    with client.chat.completions.stream(
        model="demo", messages=SKY_AS_JSON, response_format=Sky, temperature=0
    ) as stream:
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(parsed, Sky)
    with client.chat.completions.stream(
        model="two-calls", messages=WEATHER, tools=[TOOL_2]
    ) as stream:
        kinds = [event.type for event in stream]
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert kinds.count("tool_calls.function.arguments.done") == 2
    assert [call.function.parsed_arguments["city"] for call in calls] == ["Paris", "Rome"]


@check
def errors():
    def ask(**fields):
        return client.chat.completions.create(
            **{"model": "demo", "messages": SKY, "temperature": 0, **fields}
        )

    with raises(openai.NotFoundError, status_code=404):
        ask(model="nobody")
    with raises(openai.NotFoundError, status_code=404):
        ask(model="nobody", stream=True)
    with raises(openai.BadRequestError, status_code=400):
        ask(messages=[])
    with raises(openai.BadRequestError, status_code=400):
        ask(model="story", tools=[TOOL])
    with raises(openai.BadRequestError, status_code=400):
        ask(extra_body={"temperature": "hot"})
    with raises(openai.NotFoundError) as error:
        ask(model="nobody")
    assert error.value.body["message"] == "model 'nobody' not found"
    assert error.value.type == "not_found_error"


@check
def a_raw_response():
    raw = client.chat.completions.with_raw_response.create(model="story", messages=SKY)
    assert raw.headers["content-type"].startswith("application/json")
    assert raw.parse().choices[0].message.content == "Once upon a time there"


@check
async def the_async_client():
    async with openai.AsyncOpenAI(base_url=f"{SERVER}/v1", api_key="unused") as client:
        answer = await client.chat.completions.create(model="demo", temperature=0, messages=SKY)
        stream = await client.chat.completions.create(
            model="demo", temperature=0, messages=SKY, stream=True
        )
        parts = [part.choices[0].delta.content or "" async for part in stream]
        assert answer.choices[0].message.content == "".join(parts)
        parsed = await client.chat.completions.parse(
            model="demo", temperature=0, messages=SKY_AS_JSON, response_format=Sky
        )
        assert isinstance(parsed.choices[0].message.parsed, Sky)


@check
async def a_stream_that_is_left():
    async with openai.AsyncOpenAI(base_url=f"{SERVER}/v1", api_key="unused") as client:
        stream = await client.chat.completions.create(model="endless", messages=SKY, stream=True)
        async for part in stream:
            if part.choices[0].delta.content:
                break
        await stream.close()


if __name__ == "__main__":
    run()
