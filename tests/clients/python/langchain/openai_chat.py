"""`langchain-openai`: `ChatOpenAI` and `OpenAIEmbeddings` with this server's address."""

import math

from checks import PIXEL, SERVER, check, raises, run
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from langchain_openai.chat_models.base import OpenAIModelNotFoundError
from pydantic import BaseModel, Field

HERE = {"base_url": f"{SERVER}/v1", "api_key": "unused"}
llm = ChatOpenAI(model="demo", temperature=0, reasoning_effort="none", **HERE)
SKY = "What color is the sky at different times of the day? Respond using JSON"


@tool
def get_current_weather(city: str) -> str:
    """Get the current weather for a city

    Args:
        city: The name of the city
    """
    return f"22 degrees in {city}"


class Sky(BaseModel):
    """The color of the sky at two times of the day."""

    morning: str = Field(description="The color in the morning")
    noon: str = Field(description="The color at noon")


@check
def invoke():
    answer = llm.invoke("Why is the sky blue?")

    assert "Rayleigh" in answer.content
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata["input_tokens"] > 0
    assert answer.usage_metadata["total_tokens"] > answer.usage_metadata["output_tokens"] > 0


@check
def stream():
    parts = [*llm.stream("Why is the sky blue?", stream_usage=True)]

    assert len(parts) > 1
    assert "Rayleigh" in "".join(part.text for part in parts)
    assert sum((part.usage_metadata or {}).get("output_tokens", 0) for part in parts) > 5


@check
def batch():
    first, second = llm.batch(["Why is the sky blue?", "Tell me a joke"])
    assert "Rayleigh" in first.content
    assert "computer" in second.content


@check
async def ainvoke_and_astream():
    answer = await llm.ainvoke("Why is the sky blue?")
    parts = [part.text async for part in llm.astream("Why is the sky blue?")]
    assert answer.content == "".join(parts)


@check
def bind_tools():
    with_tools = llm.bind_tools([get_current_weather])
    asked = [HumanMessage("What is the weather today in Paris?")]
    called = with_tools.invoke(asked)

    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("get_current_weather", {"city": "Paris"})
    result = get_current_weather.invoke(call)
    assert "22" in with_tools.invoke([*asked, called, result]).content


@check
def two_calls_in_a_stream():
    with_tools = ChatOpenAI(model="two-calls", **HERE).bind_tools([get_current_weather])
    whole = None
    for part in with_tools.stream("What is the weather in Paris and in Rome?"):
        whole = part if whole is None else whole + part
    assert [call["args"]["city"] for call in whole.tool_calls] == ["Paris", "Rome"]
    assert len({call["id"] for call in whole.tool_calls}) == 2
    assert whole.response_metadata["finish_reason"] == "tool_calls"


@check
def with_structured_output():
    """By `json_schema`, which is the default, by a forced tool, and by JSON mode."""
    for method in ("json_schema", "function_calling"):
        assert isinstance(llm.with_structured_output(Sky, method=method).invoke(SKY), Sky), method
    sky = llm.with_structured_output(None, method="json_mode").invoke(SKY)
    assert sky["noon"] == "blue"


@check
def logprobs():
    answer = llm.bind(logprobs=True, top_logprobs=2).invoke("Say this is a test")
    tokens = answer.response_metadata["logprobs"]["content"]
    assert "".join(each["token"] for each in tokens) == answer.content
    assert all(len(each["top_logprobs"]) == 2 for each in tokens)


@check
def the_responses_api():
    caller = ChatOpenAI(model="demo", use_responses_api=True, reasoning_effort="none", **HERE)
    assert "Rayleigh" in caller.invoke("Why is the sky blue?").text
    assert "Rayleigh" in "".join(part.text for part in caller.stream("Why is the sky blue?"))


@check
def the_language_model():
    llm = OpenAI(model="story", **HERE)
    assert llm.invoke("Tell me").strip() == "Once upon a time there"
    assert "".join(llm.stream("Tell me")).strip() == "Once upon a time there"


@check
def embeddings():
    """Texts are sent as texts, not as tokens of OpenAI's own vocabulary."""
    embeddings = OpenAIEmbeddings(model="demo-embed", check_embedding_ctx_length=False, **HERE)
    vector = embeddings.embed_query("The sky is blue.")
    same, other = embeddings.embed_documents(["The sky is blue.", "A llama is an animal."])

    assert math.isclose(sum(a * b for a, b in zip(vector, same, strict=True)), 1, abs_tol=1e-3)
    assert sum(a * b for a, b in zip(vector, other, strict=True)) < 0.99


@check
def an_image_message():
    sees = ChatOpenAI(model="sees", max_tokens=3, **HERE)
    text = {"type": "text", "text": "What is this?"}
    image = {"type": "image", "base64": PIXEL, "mime_type": "image/png"}
    blind = sees.invoke([HumanMessage(content=[text])]).usage_metadata["input_tokens"]
    seen = sees.invoke([HumanMessage(content=[text, image])]).usage_metadata["input_tokens"]
    assert seen > blind + 8


@check
def errors():
    with raises(OpenAIModelNotFoundError, status_code=404):
        ChatOpenAI(model="nobody", **HERE).invoke("hi")


if __name__ == "__main__":
    run()
