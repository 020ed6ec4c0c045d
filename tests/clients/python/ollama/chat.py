"""`ollama` for Python: conversations, tools, structured answers."""

import asyncio
import base64
import tempfile
from pathlib import Path

import ollama
from checks import PIXEL, SERVER, check, raises, run, silence
from pydantic import BaseModel

client = ollama.Client(host=SERVER)

SKY = [{"role": "user", "content": "Why is the sky blue?"}]
WEATHER = [{"role": "user", "content": "What is the weather today in Paris?"}]


def get_current_weather(city: str) -> str:
    """Get the current weather for a city

    Args:
      city: The name of the city

    Returns:
      str: The weather
    """
    return f"22 degrees in {city}"


@check
def an_answer():
    answer = client.chat(model="demo", messages=SKY)

    assert answer.message.role == "assistant"
    assert "Rayleigh scattering" in answer["message"]["content"]
    assert (answer.done, answer.done_reason) == (True, "stop")


@check
def a_stream():
    *parts, last = client.chat(model="demo", messages=SKY, stream=True)

    assert len(parts) > 1
    assert "Rayleigh scattering" in "".join(part.message.content for part in parts)
    assert (last.done, last.done_reason, last.message.content) == (True, "stop", "")
    assert last.eval_count > 10


@check
def several_turns():
    first = client.chat(model="demo", messages=SKY, think=False).message
    asked = ollama.Message(role="user", content="how is that different than mie scattering?")
    second = client.chat(model="demo", messages=[*SKY, first, asked], think=False)

    assert "Mie" in second.message.content


@check
def a_system_text():
    messages = [
        {"role": "system", "content": "You are a pirate. Answer like a pirate."},
        {"role": "user", "content": "who are you?"},
    ]
    answer = client.chat(model="demo", messages=messages, think=False)
    assert "Arr" in answer.message.content


@check
def a_function_as_a_tool():
    """The client makes the schema from the function's annotations and docstring."""
    messages = [*WEATHER]
    answer = client.chat(model="demo", messages=messages, tools=[get_current_weather], think=False)

    (call,) = answer.message.tool_calls
    assert call.function.name == "get_current_weather"
    assert call.function.arguments == {"city": "Paris"}

    result = get_current_weather(**call.function.arguments)
    messages += [
        answer.message,
        {"role": "tool", "tool_name": call.function.name, "content": result},
    ]
    answer = client.chat(model="demo", messages=messages, tools=[get_current_weather], think=False)
    assert "22" in answer.message.content
    assert not answer.message.tool_calls


@check
def two_calls_in_one_answer():
    answer = client.chat(model="two-calls", messages=WEATHER, tools=[get_weather])
    parts = [*client.chat(model="two-calls", messages=WEATHER, tools=[get_weather], stream=True)]
    streamed = [call for part in parts for call in part.message.tool_calls or []]

    for calls in (answer.message.tool_calls, streamed):
        assert [call.function.name for call in calls] == ["get_weather"] * 2
        assert [call.function.arguments["city"] for call in calls] == ["Paris", "Rome"]


@check
def a_call_after_words_and_after_thoughts():
    said = client.chat(model="talks-and-calls", messages=WEATHER, tools=[get_weather]).message
    assert said.content.strip() == "I look it up."
    assert len(said.tool_calls) == 1

    thought = client.chat(
        model="thinks-and-calls", messages=WEATHER, tools=[get_weather], think=True
    ).message
    assert thought.thinking.strip() == "They want the weather."
    assert thought.content == ""
    assert len(thought.tool_calls) == 1


def get_weather(city: str) -> str:
    """Get the weather

    Args:
      city: The name of the city
    """
    return city


@check
def an_object_of_pydantic():
    class Sky(BaseModel):
        morning: str
        noon: str

    asked = [{"role": "user", "content": "What color is the sky at different times of the day?"}]
    answer = client.chat(model="demo", messages=asked, format=Sky.model_json_schema())
    assert Sky.model_validate_json(answer.message.content)


@check
def an_object_after_thoughts():
    class Sum(BaseModel):
        total: int

    asked = [{"role": "user", "content": "What is 17 + 25? Respond using JSON"}]
    answer = client.chat(model="demo", messages=asked, format=Sum.model_json_schema(), think=True)

    assert answer.message.thinking
    assert Sum.model_validate_json(answer.message.content)


@check
def thinking():
    answer = client.chat(model="thinks", messages=SKY, think=True).message
    parts = [part.message for part in client.chat("thinks", messages=SKY, think=True, stream=True)]

    assert answer.thinking.strip() == "Two and two."
    assert answer.content.strip() == "It is four."
    assert "".join(part.thinking or "" for part in parts) == answer.thinking
    assert "".join(part.content or "" for part in parts) == answer.content


@check
def logprobs():
    answer = client.chat(
        model="demo", messages=SKY, think=False, logprobs=True, options={"num_predict": 4}
    )
    assert "".join(each.token for each in answer.logprobs) == answer.message.content
    assert not any(each.top_logprobs for each in answer.logprobs)


@check
def images():
    """As base64, as bytes, and as the path of a file."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        Path(file.name).write_bytes(base64.b64decode(PIXEL))
        for image in (PIXEL, base64.b64decode(PIXEL), file.name):
            asked = {"role": "user", "content": "What is this?", "images": [image]}
            seen = client.chat(model="sees", messages=[asked], options={"num_predict": 3})
            blind = client.chat(
                model="sees", messages=[asked | {"images": []}], options={"num_predict": 3}
            )
            assert seen.eval_count == 3
            assert seen.prompt_eval_count > blind.prompt_eval_count + 8


@check
def a_recording():
    asked = {"role": "user", "content": "What is said?", "images": [silence()]}
    heard = client.chat(model="hears", messages=[asked], options={"num_predict": 3})
    assert heard.prompt_eval_count > 300


@check
def an_image_to_a_model_that_cannot_see():
    asked = [{"role": "user", "content": "What is this?", "images": [PIXEL]}]
    with raises(ollama.ResponseError, status_code=400):
        client.chat(model="demo", messages=asked)


@check
def errors():
    with raises(ollama.ResponseError, status_code=404, error="model 'nobody' not found"):
        client.chat(model="nobody", messages=SKY)
    with raises(ollama.ResponseError, status_code=400):
        client.chat(model="story", messages=SKY, tools=[get_weather])
    with raises(ollama.ResponseError, status_code=500):  # as Ollama does
        client.chat(model="demo", messages=SKY, options={"num_ctx": "many"})


@check
async def the_async_client():
    client = ollama.AsyncClient(host=SERVER)

    answer = await client.chat(model="demo", messages=SKY, think=False)
    stream = await client.chat(model="demo", messages=SKY, think=False, stream=True)

    assert "Rayleigh" in answer.message.content
    assert "".join([part.message.content async for part in stream]) == answer.message.content
    called = await client.chat(model="two-calls", messages=WEATHER, tools=[get_weather])
    assert len(called.message.tool_calls) == 2


@check
async def many_at_once():
    """Each gets its own answer."""
    client = ollama.AsyncClient(host=SERVER)

    async def echo(number):
        asked = [{"role": "user", "content": f"I am client {number}."}]
        return (await client.chat(model="echo", messages=asked)).message.content

    answers = await asyncio.gather(*map(echo, range(50)))
    for number, answer in enumerate(answers):
        assert f"I am client {number}." in answer


if __name__ == "__main__":
    run()
