"""`openai` for Python: chat completions."""

import asyncio

import openai
from checks import SERVER, check, raises, run

client = openai.OpenAI(base_url=f"{SERVER}/v1", api_key="unused", max_retries=0)

SKY = [{"role": "user", "content": "Why is the sky blue?"}]


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

    assert len(parts) > 1
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
def a_refusal_is_text():
    message = client.chat.completions.create(model="refuses", messages=SKY).choices[0].message
    assert message.content == "I am sorry, but I cannot help with that."
    assert message.refusal is None


@check
def logprobs():
    answer = client.chat.completions.create(
        model="demo",
        temperature=0,
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
        ask(extra_body={"temperature": "hot"})
    with raises(openai.NotFoundError) as error:
        ask(model="nobody")
    assert error.value.body["message"] == "model 'nobody' not found"
    assert error.value.type == "not_found_error"


@check
def an_error_in_the_middle():
    with raises(openai.APIError) as error:
        stream = client.chat.completions.create(model="dies-openai", messages=SKY, stream=True)
        for part in stream:
            assert part.choices[0].finish_reason is None
    assert "unexpectedly stopped" in error.value.message


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


@check
async def many_at_once():
    """Each gets its own answer."""

    async def echo(client, number):
        asked = [{"role": "user", "content": f"I am client {number}."}]
        stream = await client.chat.completions.create(model="echo", messages=asked, stream=True)
        return "".join([part.choices[0].delta.content or "" async for part in stream])

    async with openai.AsyncOpenAI(base_url=f"{SERVER}/v1", api_key="unused") as client:
        answers = await asyncio.gather(*(echo(client, number) for number in range(50)))
    for number, answer in enumerate(answers):
        assert f"I am client {number}." in answer


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
