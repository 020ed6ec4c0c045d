"""`openai` for Python: completions, embeddings and the list of models."""

import base64
import math
import struct

import openai
from checks import SERVER, check, raises, run

client = openai.OpenAI(base_url=f"{SERVER}/v1", api_key="unused", max_retries=0)


@check
def a_completion():
    answer = client.completions.create(model="story", prompt="Tell me")

    assert answer.object == "text_completion"
    assert answer.choices[0].text.strip() == "Once upon a time there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 0


@check
def a_completion_in_a_stream():
    *parts, last = client.completions.create(
        model="story", prompt="x", stream=True, stream_options={"include_usage": True}
    )
    assert "".join(part.choices[0].text for part in parts).strip() == "Once upon a time there"
    assert parts[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage.completion_tokens > 0


@check
def a_prompt_is_raw():
    assert client.completions.create(model="echo", prompt="as it is").choices[0].text == "as it is"


@check
def several_prompts_and_choices():
    answer = client.completions.create(model="echo", prompt=["one", "two"], n=2)
    texts = [choice.text for choice in sorted(answer.choices, key=lambda choice: choice.index)]
    assert texts == ["one", "one", "two", "two"]


@check
def echo_stop_and_length():
    answer = client.completions.create(model="story", prompt="So: ", echo=True).choices[0]
    assert answer.text.startswith("So: ")
    answer = client.completions.create(model="story", prompt="x", stop=["time"]).choices[0]
    assert answer.text.strip() == "Once upon a"
    answer = client.completions.create(model="story", prompt="x", max_tokens=2).choices[0]
    assert answer.finish_reason == "length"


@check
def the_middle_of_a_text():
    answer = client.completions.create(model="fills", prompt="def add(", suffix="    return c")
    assert answer.choices[0].text == "def add(<here>    return c"


@check
def logprobs_of_a_completion():
    answer = client.completions.create(model="demo", prompt="The", logprobs=2, max_tokens=4)
    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert len(logprobs.token_logprobs) == len(logprobs.tokens) == len(logprobs.text_offset)
    assert all(2 <= len(top) <= 3 for top in logprobs.top_logprobs)


@check
def embeddings():
    answer = client.embeddings.create(model="demo-embed", input=["The sky is blue.", "Hi"])

    assert answer.object == "list"
    assert [each.index for each in answer.data] == [0, 1]
    for each in answer.data:
        assert math.isclose(math.hypot(*each.embedding), 1, rel_tol=1e-4)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


@check
def embeddings_as_floats_and_as_base64():
    """The client asks for base64 unless it is told otherwise, and decodes it."""
    text = "The sky is blue."
    (floats,) = client.embeddings.create(
        model="demo-embed", input=text, encoding_format="float"
    ).data
    raw = client.embeddings.with_raw_response.create(
        model="demo-embed", input=text, encoding_format="base64"
    )
    packed = base64.b64decode(raw.http_response.json()["data"][0]["embedding"])
    unpacked = struct.unpack(f"<{len(packed) // 4}f", packed)
    assert all(
        math.isclose(a, b, abs_tol=1e-6) for a, b in zip(unpacked, floats.embedding, strict=True)
    )


@check
def fewer_dimensions_of_an_embedding():
    (vector,) = client.embeddings.create(model="demo-embed", input="x", dimensions=8).data
    assert len(vector.embedding) == 8


@check
def embeddings_of_tokens():
    (one,) = client.embeddings.create(model="demo-embed", input=[5, 6, 7]).data
    two = client.embeddings.create(model="demo-embed", input=[[5, 6, 7], [8]]).data
    assert len(two) == 2
    assert all(
        math.isclose(a, b, abs_tol=1e-3)
        for a, b in zip(one.embedding, two[0].embedding, strict=True)
    )


@check
def models():
    listed = {model.id: model for model in client.models.list()}
    assert {"demo:latest", "demo-embed:latest"} <= set(listed)
    assert listed["demo:latest"].object == "model"
    assert listed["demo:latest"].created > 0
    assert client.models.retrieve("demo").id == "demo"
    with raises(openai.NotFoundError, status_code=404):
        client.models.retrieve("nobody")


@check
def errors():
    with raises(openai.NotFoundError, status_code=404):
        client.completions.create(model="nobody", prompt="x")
    with raises(openai.NotFoundError, status_code=404):
        client.embeddings.create(model="nobody", input="x")
    with raises(openai.BadRequestError, status_code=400):
        client.completions.create(model="story", prompt="x", best_of=2)
    with raises(openai.BadRequestError, status_code=400):
        client.embeddings.create(model="demo-embed", input=[])


@check
async def the_async_client():
    async with openai.AsyncOpenAI(base_url=f"{SERVER}/v1", api_key="unused") as client:
        stream = await client.completions.create(model="story", prompt="x", stream=True)
        text = "".join([part.choices[0].text async for part in stream])
        assert text.strip() == "Once upon a time there"
        answer = await client.embeddings.create(model="demo-embed", input="x")
        assert len(answer.data) == 1
        assert "demo:latest" in [model.id async for model in client.models.list()]


if __name__ == "__main__":
    run()
