"""`anthropic` for Python: messages."""

import anthropic
from checks import PIXEL, SERVER, check, raises, run
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=SERVER, api_key="unused", max_retries=0)

SKY = [{"role": "user", "content": "Why is the sky blue?"}]
WEATHER = [{"role": "user", "content": "What is the weather today in Paris?"}]
TOOL = {
    "name": "get_current_weather",
    "description": "Get the current weather for a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "The name of the city"}},
        "required": ["city"],
    },
}


def ask(model="demo", messages=SKY, **fields):
    return client.messages.create(model=model, messages=messages, max_tokens=500, **fields)


@check
def an_answer():
    answer = ask()

    assert answer.id.startswith("msg_")
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "demo")
    assert "Rayleigh scattering" in answer.content[-1].text
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 10


@check
def events_of_a_stream():
    events = [*ask(stream=True)]
    kinds = [event.type for event in events]

    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert events[0].message.usage.input_tokens > 0
    assert events[-2].delta.stop_reason == "end_turn"
    assert events[-2].usage.output_tokens > 10
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") >= 1


@check
def stream_helper():
    with client.messages.stream(model="demo", messages=SKY, max_tokens=500) as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
    assert "Rayleigh" in text
    assert answer.content[-1].text == text
    assert answer.usage.output_tokens > 10


@check
def a_system_text_and_blocks():
    pirate = "You are a pirate. Answer like a pirate."
    who = [{"role": "user", "content": [{"type": "text", "text": "who are you?"}]}]
    assert "Arr" in ask(system=pirate, messages=who).content[-1].text
    blocks = [{"type": "text", "text": pirate, "cache_control": {"type": "ephemeral"}}]
    assert "Arr" in ask(system=blocks, messages=who).content[-1].text


@check
def several_turns():
    first = ask()
    asked = {"role": "user", "content": "how is that different than mie scattering?"}
    turns = [*SKY, {"role": "assistant", "content": first.content}, asked]
    assert "Mie" in ask(messages=turns).content[-1].text


@check
def a_tool():
    answer = ask(messages=WEATHER, tools=[TOOL])
    assert answer.stop_reason == "tool_use"
    call = answer.content[-1]
    assert (call.type, call.name, call.input) == ("tool_use", TOOL["name"], {"city": "Paris"})
    assert call.id

    result = {"type": "tool_result", "tool_use_id": call.id, "content": "22 degrees in Paris"}
    turns = [
        *WEATHER,
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    answer = ask(messages=turns, tools=[TOOL])
    assert "22" in answer.content[-1].text
    assert answer.stop_reason == "end_turn"


@check
def two_calls_in_a_stream():
    tool = TOOL | {"name": "get_weather"}
    with client.messages.stream(
        model="two-calls", messages=WEATHER, tools=[tool], max_tokens=500
    ) as stream:
        answer = stream.get_final_message()
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert [call.input["city"] for call in calls] == ["Paris", "Rome"]
    assert len({call.id for call in calls}) == 2
    assert answer.stop_reason == "tool_use"


@check
def tool_choice():
    def calls(choice):
        answer = ask(tools=[TOOL], tool_choice=choice)
        return [block.name for block in answer.content if block.type == "tool_use"]

    assert calls({"type": "none"}) == []
    assert TOOL["name"] in calls({"type": "any"})
    assert TOOL["name"] in calls({"type": "tool", "name": TOOL["name"]})


@check
def thinking():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    asked = {"model": "thinks", "messages": SKY, "max_tokens": 2000, "thinking": thinking}
    answer = client.messages.create(**asked)
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking.strip() == "Two and two."
    assert answer.content[1].text.strip() == "It is four."

    with client.messages.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()
    assert {"thinking", "text"} <= set(kinds)
    assert [block.type for block in streamed.content] == ["thinking", "text"]


@check
def thoughts_before_a_call():
    answer = client.messages.create(
        model="thinks-and-calls",
        messages=WEATHER,
        tools=[TOOL | {"name": "get_weather"}],
        max_tokens=2000,
        thinking={"type": "enabled", "budget_tokens": 1024},
    )
    assert [block.type for block in answer.content] == ["thinking", "tool_use"]
    assert answer.stop_reason == "tool_use"


@check
def reasons_to_stop():
    limited = client.messages.create(model="demo", messages=SKY, max_tokens=3)
    assert limited.stop_reason == "max_tokens"
    stopped = ask(stop_sequences=["never", "Rayleigh"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "Rayleigh")


@check
def a_beginning_of_the_answer():
    """The model goes on with the last message if it is the assistant's."""
    turns = [*SKY, {"role": "assistant", "content": "The sky is blue because of"}]
    assert "Rayleigh" in ask(messages=turns).content[-1].text


@check
def count_tokens():
    counted = client.messages.count_tokens(model="demo", messages=SKY).input_tokens
    more = client.messages.count_tokens(
        model="demo", messages=SKY, system="Be brief.", tools=[TOOL]
    )
    assert 0 < counted < more.input_tokens


@check
def parse_with_pydantic():
    class Sky(BaseModel):
        morning: str
        noon: str

    asked = [
        {
            "role": "user",
            "content": "What color is the sky at different times of the day? Respond using JSON",
        }
    ]
    answer = client.messages.parse(model="demo", messages=asked, max_tokens=500, output_format=Sky)
    assert isinstance(answer.parsed_output, Sky)


@check
def an_image():
    def tokens(*blocks):
        content = [*blocks, {"type": "text", "text": "What is this?"}]
        answer = client.messages.create(
            model="sees", messages=[{"role": "user", "content": content}], max_tokens=3
        )
        return answer.usage.input_tokens

    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert tokens({"type": "image", "source": source}) > tokens() + 8


@check
def the_beta_api():
    answer = client.beta.messages.create(
        model="demo", messages=SKY, max_tokens=500, betas=["context-1m-2025-08-07"]
    )
    assert "Rayleigh" in answer.content[-1].text
    assert client.beta.messages.count_tokens(model="demo", messages=SKY).input_tokens > 0


@check
def tools_run_by_the_client():
    cities = []

    @anthropic.beta_tool
    def get_current_weather(city: str) -> str:
        """Get the current weather for a city

        Args:
            city: The name of the city
        """
        cities.append(city)
        return "22 degrees"

    runner = client.beta.messages.tool_runner(
        model="demo", messages=WEATHER, tools=[get_current_weather], max_tokens=500
    )
    assert "22" in runner.until_done().content[-1].text
    assert cities == ["Paris"]


@check
def an_image_to_a_model_that_cannot_see():
    image = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
    }
    with raises(anthropic.BadRequestError, status_code=400):
        ask(messages=[{"role": "user", "content": [image]}])


@check
def models():
    assert "demo:latest" in [model.id for model in client.models.list()]


@check
def errors():
    with raises(anthropic.NotFoundError, status_code=404):
        ask(model="nobody")
    with raises(anthropic.NotFoundError, status_code=404):
        next(iter(ask(model="nobody", stream=True)))
    with raises(anthropic.BadRequestError, status_code=400):
        ask(messages=[])
    with raises(anthropic.BadRequestError, status_code=400):
        ask(model="story", tools=[TOOL])
    with raises(anthropic.NotFoundError) as error:
        ask(model="nobody")
    assert error.value.body["type"] == "error"
    assert error.value.body["error"]["type"] == "not_found_error"


@check
def an_error_in_the_middle():
    with raises(anthropic.APIStatusError) as error:
        for event in client.messages.create(
            model="dies-anthropic", messages=SKY, max_tokens=9, stream=True
        ):
            assert event.type != "message_stop"
    assert error.value.body["error"]["type"] == "api_error"


@check
async def the_async_client():
    async with anthropic.AsyncAnthropic(base_url=SERVER, api_key="unused") as client:
        fields = {"model": "demo", "messages": SKY, "max_tokens": 500}
        answer = await client.messages.create(**fields)
        async with client.messages.stream(**fields) as stream:
            text = "".join([part async for part in stream.text_stream])
        assert answer.content[-1].text == text
        counted = await client.messages.count_tokens(model="demo", messages=SKY)
        assert counted.input_tokens > 0


if __name__ == "__main__":
    run()
