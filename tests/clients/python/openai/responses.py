"""`openai` for Python: the Responses API."""

import json

import openai
from checks import PIXEL, SERVER, check, raises, run
from pydantic import BaseModel

client = openai.OpenAI(base_url=f"{SERVER}/v1", api_key="unused", max_retries=0)

TOOL = {
    "type": "function",
    "name": "get_current_weather",
    "description": "Get the current weather for a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "The name of the city"}},
        "required": ["city"],
    },
}
WEATHER = "What is the weather today in Paris?"
SKY = "What color is the sky at different times of the day? Respond using JSON"


class Sky(BaseModel):
    morning: str
    noon: str


@check
def an_answer():
    answer = client.responses.create(model="demo", temperature=0, input="Why is the sky blue?")

    assert answer.id.startswith("resp_")
    assert (answer.object, answer.status, answer.error) == ("response", "completed", None)
    assert "Rayleigh scattering" in answer.output_text
    message = answer.output[-1]
    assert (message.type, message.role) == ("message", "assistant")
    assert answer.usage.output_tokens > 10
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


@check
def instructions_and_input_items():
    answer = client.responses.create(
        model="demo",
        temperature=0,
        instructions="You are a pirate. Answer like a pirate.",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "who are you?"}]}],
    )
    assert "Arr" in answer.output_text


@check
def events_of_a_stream():
    stream = client.responses.create(
        model="demo", temperature=0, input="Why is the sky blue?", stream=True
    )
    events = [*stream]
    kinds = [event.type for event in events]

    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    order = [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    at = kinds.index("response.content_part.added") - 1
    found = [kind for index, kind in enumerate(kinds[at:-1]) if kind != kinds[at + index - 1]]
    assert found == order
    assert [event.sequence_number for event in events] == [*range(len(events))]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text
    assert "Rayleigh" in text


@check
def stream_helper():
    with client.responses.stream(
        model="demo", temperature=0, input="Why is the sky blue?"
    ) as stream:
        text = "".join(
            event.delta for event in stream if event.type == "response.output_text.delta"
        )
        answer = stream.get_final_response()
    assert answer.output_text == text


@check
def a_tool():
    asked = [{"role": "user", "content": WEATHER}]
    answer = client.responses.create(model="demo", temperature=0, input=asked, tools=[TOOL])
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert call.name == "get_current_weather"
    assert json.loads(call.arguments) == {"city": "Paris"}

    result = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": "22 degrees in Paris",
    }
    answer = client.responses.create(
        model="demo", temperature=0, input=[*asked, call, result], tools=[TOOL]
    )
    assert "22" in answer.output_text


@check
def two_calls_in_a_stream():
    tool = TOOL | {"name": "get_weather"}
    stream = client.responses.create(model="two-calls", input=WEATHER, tools=[tool], stream=True)
    events = [*stream]
    done = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert [json.loads(event.arguments)["city"] for event in done] == ["Paris", "Rome"]
    calls = [item for item in events[-1].response.output if item.type == "function_call"]
    assert len({call.call_id for call in calls}) == 2


@check
def parse_with_pydantic():
    answer = client.responses.parse(model="demo", temperature=0, input=SKY, text_format=Sky)
    assert isinstance(answer.output_parsed, Sky)


@check
def a_conversation_by_its_last_answer():
    first = client.responses.create(model="demo", temperature=0, input="Why is the sky blue?")
    second = client.responses.create(
        model="demo",
        temperature=0,
        input="how is that different than mie scattering?",
        previous_response_id=first.id,
    )
    assert "Mie" in second.output_text
    assert second.previous_response_id == first.id
    with raises(openai.BadRequestError, status_code=400):
        client.responses.create(
            model="demo", temperature=0, input="x", previous_response_id="resp_unknown"
        )


@check
def reasoning():
    answer = client.responses.create(
        model="thinks", input="What is 2 + 2?", reasoning={"effort": "high", "summary": "auto"}
    )
    kinds = [item.type for item in answer.output]
    assert kinds == ["reasoning", "message"]
    assert answer.output_text.strip() == "It is four."


@check
def a_limit():
    answer = client.responses.create(
        model="demo", temperature=0, input="Why is the sky blue?", max_output_tokens=3
    )
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"


@check
def an_image():
    def tokens(*parts):
        content = [{"type": "input_text", "text": "What is this?"}, *parts]
        answer = client.responses.create(
            model="sees", input=[{"role": "user", "content": content}], max_output_tokens=3
        )
        return answer.usage.input_tokens

    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}
    assert tokens(image) > tokens() + 8


@check
def what_is_kept():
    answer = client.responses.create(model="story", input="Tell me")
    assert client.responses.retrieve(answer.id).output_text == answer.output_text
    (item,) = client.responses.input_items.list(answer.id).data
    assert item.content[0].text == "Tell me"
    client.responses.delete(answer.id)
    with raises(openai.NotFoundError, status_code=404):
        client.responses.retrieve(answer.id)
    unkept = client.responses.create(model="story", input="Tell me", store=False)
    with raises(openai.NotFoundError, status_code=404):
        client.responses.retrieve(unkept.id)


@check
def count_tokens():
    counted = client.responses.input_tokens.count(model="demo", input="Why is the sky blue?")
    answer = client.responses.create(
        model="demo", input="Why is the sky blue?", max_output_tokens=1
    )
    assert counted.input_tokens == answer.usage.input_tokens


@check
def a_tool_that_must_be_called():
    answer = client.responses.create(
        model="demo",
        temperature=0,
        input="Why is the sky blue?",
        tools=[TOOL],
        tool_choice={"type": "function", "name": "get_current_weather"},
    )
    assert "function_call" in [item.type for item in answer.output]


@check
def an_error_in_the_middle():
    *_, error, failed = client.responses.create(model="dies-responses", input="x", stream=True)
    assert error.type == "error"
    assert error.message == failed.response.error.message
    assert (failed.type, failed.response.status) == ("response.failed", "failed")


@check
def errors():
    with raises(openai.NotFoundError, status_code=404):
        client.responses.create(model="nobody", input="x")
    with raises(openai.BadRequestError, status_code=400):
        client.responses.create(model="story", input="x", tools=[TOOL])


@check
async def the_async_client():
    async with openai.AsyncOpenAI(base_url=f"{SERVER}/v1", api_key="unused") as client:
        answer = await client.responses.create(
            model="demo", temperature=0, input="Why is the sky blue?"
        )
        assert "Rayleigh" in answer.output_text
        stream = await client.responses.create(model="story", input="x", stream=True)
        kinds = [event.type async for event in stream]
        assert kinds[-1] == "response.completed"


if __name__ == "__main__":
    run()
