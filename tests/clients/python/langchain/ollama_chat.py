"""`langchain-ollama`: the calls that LangChain's page about `ChatOllama` shows, and their like."""

import ollama
from checks import PIXEL, SERVER, check, raises, run
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_ollama import ChatOllama
from pydantic import BaseModel, Field, ValidationError

llm = ChatOllama(model="demo", base_url=SERVER, temperature=0, reasoning=False)

SYSTEM = (
    "You are a helpful assistant that translates {input_language} to {output_language}."
    " Translate the user sentence."
)
TRANSLATE = [
    ("system", SYSTEM.format(input_language="English", output_language="French")),
    ("human", "I love programming."),
]


@tool
def get_current_weather(city: str) -> str:
    """Get the current weather for a city

    Args:
        city: The name of the city
    """
    return f"22 degrees in {city}"


@tool
def validate_user(user_id: int, addresses: list[str]) -> bool:
    """Validate user using historical addresses.

    Args:
        user_id: the user ID.
        addresses: Previous addresses as a list of strings.
    """
    return user_id > 0 and bool(addresses)


class Sky(BaseModel):
    """The color of the sky at two times of the day."""

    morning: str = Field(description="The color in the morning")
    noon: str = Field(description="The color at noon")


SKY = "What color is the sky at different times of the day? Respond using JSON"


@check
def invoke():
    answer = llm.invoke(TRANSLATE)

    assert answer.content == "J'adore la programmation."
    assert answer.response_metadata["model"] == "demo"
    assert answer.response_metadata["done_reason"] == "stop"
    assert answer.usage_metadata["input_tokens"] > 0
    assert answer.usage_metadata["output_tokens"] > 0


@check
def a_chain_with_a_prompt_template():
    prompt = ChatPromptTemplate.from_messages([("system", SYSTEM), ("human", "{input}")])
    words = {
        "input_language": "English",
        "output_language": "French",
        "input": "I love programming.",
    }
    assert (prompt | llm | StrOutputParser()).invoke(words) == "J'adore la programmation."


@check
def stream():
    parts = [part.text for part in llm.stream("Why is the sky blue?")]

    assert len(parts) > 1
    assert "Rayleigh scattering" in "".join(parts)


@check
def batch():
    answers = llm.batch(["Why is the sky blue?", "Tell me a joke", "Write a haiku"])

    assert "Rayleigh" in answers[0].content
    assert "computer" in answers[1].content
    assert "lamp" in answers[2].content


@check
async def ainvoke_astream_and_abatch():
    answer = await llm.ainvoke(TRANSLATE)
    parts = [part.text async for part in llm.astream(TRANSLATE)]
    answers = await llm.abatch([TRANSLATE, "Tell me a joke"])

    assert answer.content == "".join(parts) == answers[0].content == "J'adore la programmation."
    assert "computer" in answers[1].content


@check
def bind_tools():
    with_tools = llm.bind_tools([get_current_weather])
    asked = [HumanMessage("What is the weather today in Paris?")]
    called = with_tools.invoke(asked)

    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("get_current_weather", {"city": "Paris"})
    result = get_current_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert "22" in with_tools.invoke([*asked, called, result]).content


@check
def the_tool_of_the_page():
    with_tools = ChatOllama(model="validates", base_url=SERVER).bind_tools([validate_user])
    answer = with_tools.invoke(
        "Could you validate user 123? They previously lived at "
        "123 Fake St in Boston MA and 234 Pretend Boulevard in "
        "Houston TX."
    )
    assert isinstance(answer, AIMessage)
    (call,) = answer.tool_calls
    assert call["args"] == {
        "user_id": 123,
        "addresses": ["123 Fake St, Boston, MA", "234 Pretend Boulevard, Houston, TX"],
    }


@check
def tools_in_a_stream():
    with_tools = ChatOllama(model="two-calls", base_url=SERVER).bind_tools([get_current_weather])
    whole = None
    for part in with_tools.stream("What is the weather in Paris and in Rome?"):
        whole = part if whole is None else whole + part
    assert [call["args"]["city"] for call in whole.tool_calls] == ["Paris", "Rome"]


@check
def with_structured_output():
    """By `json_schema`, which is the default, and by a tool, from one schema."""
    sky = llm.with_structured_output(Sky).invoke(SKY)
    assert isinstance(sky, Sky)

    as_dict = llm.with_structured_output(Sky.model_json_schema(), method="json_schema").invoke(SKY)
    assert set(as_dict) == {"morning", "noon"}

    caller = ChatOllama(model="calls-sky", base_url=SERVER)
    called = caller.with_structured_output(Sky, method="function_calling").invoke(SKY)
    assert called == Sky(morning="orange", noon="blue")

    raw = llm.with_structured_output(Sky, include_raw=True).invoke(SKY)
    assert raw["parsed"] == sky
    assert raw["parsing_error"] is None


@check
def json_mode():
    answer = ChatOllama(model="demo", base_url=SERVER, format="json", reasoning=False).invoke(SKY)
    assert answer.content.startswith("{")
    sky = llm.with_structured_output(None, method="json_mode").invoke(SKY)
    assert sky["noon"] == "blue"


@check
def reasoning():
    thinker = ChatOllama(model="thinks", base_url=SERVER, reasoning=True)
    answer = thinker.invoke("What is 2 + 2?")
    parts = [*thinker.stream("What is 2 + 2?")]

    assert answer.content.strip() == "It is four."
    assert answer.additional_kwargs["reasoning_content"].strip() == "Two and two."
    thoughts = [part.additional_kwargs.get("reasoning_content", "") for part in parts]
    assert "".join(thoughts).strip() == "Two and two."
    assert "".join(part.content for part in parts).strip() == "It is four."
    assert "reasoning_content" not in llm.invoke("What is 2 + 2?").additional_kwargs


@check
def an_image_message():
    """In the page's form, and in LangChain's own. A model that cannot see says so."""
    sees = ChatOllama(model="sees", base_url=SERVER, num_predict=3)
    text = {"type": "text", "text": "What is this?"}
    blind = sees.invoke([HumanMessage(content=[text])]).usage_metadata["input_tokens"]
    for image in (
        {"type": "image_url", "image_url": f"data:image/png;base64,{PIXEL}"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image", "base64": PIXEL, "mime_type": "image/png"},
    ):
        message = HumanMessage(content=[text, image])
        assert sees.invoke([message]).usage_metadata["input_tokens"] > blind + 8
        with raises(ollama.ResponseError, status_code=400):
            llm.invoke([message])


@check
def a_system_message_and_turns():
    said = llm.invoke("Why is the sky blue?")
    asked = HumanMessage("how is that different than mie scattering?")
    assert "Mie" in llm.invoke([HumanMessage("Why is the sky blue?"), said, asked]).content
    pirate = SystemMessage("You are a pirate. Answer like a pirate.")
    assert "Arr" in llm.invoke([pirate, HumanMessage("who are you?")]).content


@check
def parameters():
    limited = ChatOllama(
        model="demo", base_url=SERVER, num_predict=3, seed=1, top_k=10, top_p=0.9,
        repeat_penalty=1.1, mirostat=0, num_ctx=1024, keep_alive="5m", stop=["!!"],
    )  # fmt: skip
    answer = limited.invoke("Why is the sky blue?")
    assert answer.usage_metadata["output_tokens"] == 3
    assert answer.response_metadata["done_reason"] == "length"


@check
def validate_model_on_init():
    ChatOllama(model="demo", base_url=SERVER, validate_model_on_init=True)
    with raises(ValidationError):
        ChatOllama(model="nobody", base_url=SERVER, validate_model_on_init=True)


@check
def errors():
    with raises(ollama.ResponseError, status_code=404):
        ChatOllama(model="nobody", base_url=SERVER).invoke("hi")


if __name__ == "__main__":
    run()
