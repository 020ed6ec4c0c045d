"""`litellm`: one function for each of the protocols that this server speaks."""

import json
import os

from checks import PIXEL, SERVER, check, raises, run, silence

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks a server for prices
import litellm
from pydantic import BaseModel

litellm.suppress_debug_info = True

OLLAMA = {"api_base": SERVER}
OPENAI = {"api_base": f"{SERVER}/v1", "api_key": "unused"}
ANTHROPIC = {"api_base": SERVER, "api_key": "unused"}
PROTOCOLS = {"ollama": OLLAMA, "ollama_chat": OLLAMA, "openai": OPENAI, "anthropic": ANTHROPIC}

SKY = [{"role": "user", "content": "Why is the sky blue?"}]
SKY_AS_JSON = [
    {
        "role": "user",
        "content": "What color is the sky at different times of the day? Respond using JSON",
    }
]
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


def ask(protocol, model="demo", messages=SKY, **fields):
    fields.setdefault("temperature", 0)
    if protocol != "anthropic":
        fields.setdefault("reasoning_effort", "none")
    return litellm.completion(
        model=f"{protocol}/{model}", messages=messages, **PROTOCOLS[protocol], **fields
    )


def answers(protocol):
    answer = ask(protocol, max_tokens=500)
    assert "Rayleigh scattering" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens > 10

    parts = [*ask(protocol, stream=True, max_tokens=500)]
    assert "Rayleigh" in "".join(part.choices[0].delta.content or "" for part in parts)
    assert parts[-1].choices[0].finish_reason == "stop"
    assert len(parts) > 1


def calls(protocol):
    answer = ask(protocol, messages=WEATHER, tools=[TOOL], max_tokens=500)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_current_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert answer.choices[0].finish_reason == "tool_calls"
    turns = [
        *WEATHER,
        answer.choices[0].message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "content": "22 degrees in Paris"},
    ]
    after = ask(protocol, messages=turns, tools=[TOOL], max_tokens=500)
    assert "22" in after.choices[0].message.content


def calls_twice(protocol):
    tool = {"type": "function", "function": TOOL["function"] | {"name": "get_weather"}}
    parts = ask(protocol, "two-calls", messages=WEATHER, tools=[tool], stream=True, max_tokens=500)
    whole = litellm.stream_chunk_builder([*parts])
    cities = [
        json.loads(call.function.arguments)["city"] for call in whole.choices[0].message.tool_calls
    ]
    assert cities == ["Paris", "Rome"]


@check
def ollama_generates():
    answers("ollama")


@check
def ollama_chats():
    answers("ollama_chat")


@check
def openai_chats():
    answers("openai")


@check
def anthropic_chats():
    answers("anthropic")


@check
def ollama_calls_tools():
    calls("ollama_chat")


@check
def openai_calls_tools():
    calls("openai")


@check
def anthropic_calls_tools():
    calls("anthropic")


@check
def ollama_calls_twice():
    """Not in a stream: there litellm joins calls that come in different lines, Ollama's too."""
    tool = {"type": "function", "function": TOOL["function"] | {"name": "get_weather"}}
    answer = ask("ollama_chat", "two-calls", messages=WEATHER, tools=[tool])
    calls = answer.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Paris", "Rome"]


@check
def openai_calls_twice():
    calls_twice("openai")


@check
def anthropic_calls_twice():
    calls_twice("anthropic")


@check
def objects_of_pydantic():
    for protocol in ("ollama_chat", "openai"):
        answer = ask(protocol, messages=SKY_AS_JSON, response_format=Sky)
        assert Sky.model_validate_json(answer.choices[0].message.content), protocol
    answer = ask("ollama", "says-sky", messages=SKY_AS_JSON, response_format=Sky)
    assert Sky.model_validate_json(answer.choices[0].message.content)


@check
def json_mode():
    for protocol in ("ollama", "ollama_chat", "openai"):
        answer = ask(protocol, "says-sky", response_format={"type": "json_object"})
        sky = {"morning": "orange", "noon": "blue"}
        assert json.loads(answer.choices[0].message.content) == sky, protocol


@check
def reasoning():
    for protocol in ("ollama_chat", "openai"):
        answer = ask(protocol, "thinks", reasoning_effort="high")
        message = answer.choices[0].message
        assert message.content.strip() == "It is four.", protocol
        assert message.reasoning_content.strip() == "Two and two.", protocol


@check
def thinking_of_anthropic():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    answer = ask(
        "anthropic",
        "thinks",
        thinking=thinking,
        allowed_openai_params=["thinking"],  # it knows only Anthropic's models
        max_tokens=2000,
    )
    message = answer.choices[0].message
    assert message.content.strip() == "It is four."
    assert message.reasoning_content.strip() == "Two and two."


@check
def embeddings():
    for protocol in ("ollama", "openai"):
        answer = litellm.embedding(
            model=f"{protocol}/demo-embed",
            input=["The sky is blue.", "Hi"],
            **PROTOCOLS[protocol],
        )
        assert len(answer.data) == 2, protocol
        assert answer.usage.prompt_tokens > 0, protocol


@check
def rerank():
    """In the shapes of Jina and of Cohere."""
    documents = ["a horse", "what is a panda", "nothing"]
    for protocol in ("jina_ai", "cohere"):
        answer = litellm.rerank(
            model=f"{protocol}/ranks",
            query="what is a panda",
            documents=documents,
            top_n=2,
            api_base=SERVER,
            api_key="unused",
        )
        assert answer.results[0]["index"] == 1, protocol
        assert len(answer.results) == 2, protocol
        scores = [each["relevance_score"] for each in answer.results]
        assert scores == sorted(scores, reverse=True), protocol


@check
def text_completion_and_responses():
    text = litellm.text_completion(model="openai/story", prompt="x", **OPENAI).choices[0].text
    assert text.strip() == "Once upon a time there"
    answer = litellm.responses(
        model="openai/demo", input="Why is the sky blue?", temperature=0, **OPENAI
    )
    assert "Rayleigh" in answer.output[-1].content[0].text


@check
def an_image():
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    text = {"type": "text", "text": "What is this?"}
    for protocol in PROTOCOLS:
        seen, blind = (
            ask(
                protocol,
                "sees",
                messages=[{"role": "user", "content": content}],
                max_tokens=3,
            ).usage.prompt_tokens
            for content in ([text, image], [text])
        )
        assert seen > blind + 8, protocol


@check
def transcription():
    file = ("speech.wav", silence())
    assert litellm.transcription(model="openai/hears", file=file, **OPENAI).text


@check
def an_image_to_a_model_that_cannot_see():
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}]
    with raises(litellm.BadRequestError, status_code=400):
        ask("openai", messages=messages)
    with raises(litellm.BadRequestError, status_code=400):
        ask("anthropic", messages=messages)


@check
def errors():
    with raises(litellm.NotFoundError, status_code=404):
        ask("openai", "nobody")
    with raises(litellm.NotFoundError, status_code=404):
        ask("anthropic", "nobody")


@check
async def async_functions():
    for protocol in ("ollama_chat", "openai", "anthropic"):
        fields = {"model": f"{protocol}/demo", "messages": SKY, "max_tokens": 500, "temperature": 0}
        answer = await litellm.acompletion(**fields, **PROTOCOLS[protocol])
        stream = await litellm.acompletion(stream=True, **fields, **PROTOCOLS[protocol])
        text = "".join([part.choices[0].delta.content or "" async for part in stream])
        assert "Rayleigh" in text, protocol
        assert "Rayleigh" in answer.choices[0].message.content, protocol


if __name__ == "__main__":
    run()
