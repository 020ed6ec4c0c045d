"""`openai` for Python: chat completions that call tools or answer with objects."""

import json

import openai
from checks import SERVER, check, raises, run
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
STRICT_TOOL = {
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
    answer = client.chat.completions.create(
        model="two-calls", messages=WEATHER, tools=[STRICT_TOOL]
    )
    calls = answer.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Paris", "Rome"]
    assert len({call.id for call in calls}) == 2


@check
def two_calls_in_a_stream():
    stream = client.chat.completions.create(
        model="two-calls", messages=WEATHER, tools=[STRICT_TOOL], stream=True
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


@check
def tool_choice():
    def calls(choice, **more):
        answer = client.chat.completions.create(
            model="demo",
            temperature=0,
            messages=SKY,
            tools=[TOOL, STRICT_TOOL],
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
def parse_a_tool_with_pydantic():
    tool = openai.pydantic_function_tool(Sky, name="Sky")
    answer = client.chat.completions.parse(model="calls-sky", messages=SKY, tools=[tool])
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.parsed_arguments == Sky(morning="orange", noon="blue")


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
def stream_helper_with_a_schema_and_tools():
    with client.chat.completions.stream(
        model="demo", messages=SKY_AS_JSON, response_format=Sky, temperature=0
    ) as stream:
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(parsed, Sky)
    with client.chat.completions.stream(
        model="two-calls", messages=WEATHER, tools=[STRICT_TOOL]
    ) as stream:
        kinds = [event.type for event in stream]
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert kinds.count("tool_calls.function.arguments.done") == 2
    assert [call.function.parsed_arguments["city"] for call in calls] == ["Paris", "Rome"]


@check
def a_model_without_tools():
    with raises(openai.BadRequestError, status_code=400):
        client.chat.completions.create(model="story", messages=WEATHER, tools=[TOOL])


@check
async def the_async_client():
    async with openai.AsyncOpenAI(base_url=f"{SERVER}/v1", api_key="unused") as client:
        answer = await client.chat.completions.parse(
            model="demo", temperature=0, messages=SKY_AS_JSON, response_format=Sky
        )
        assert isinstance(answer.choices[0].message.parsed, Sky)


if __name__ == "__main__":
    run()
