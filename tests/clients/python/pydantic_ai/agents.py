"""`pydantic-ai`: agents with tools and typed answers."""

import base64

from checks import PIXEL, SERVER, check, raises, run
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, Embedder, NativeOutput, PromptedOutput
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.exceptions import ModelNotFoundError
from pydantic_ai.messages import ThinkingPart, ToolCallPart
from pydantic_ai.models.ollama import OllamaModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider

ollama = OllamaProvider(base_url=f"{SERVER}/v1")
openai = OpenAIProvider(base_url=f"{SERVER}/v1", api_key="unused")
QUIET = {"thinking": False, "temperature": 0}
demo = OllamaModel("demo", provider=ollama, settings=QUIET)

SKY = "What color is the sky at different times of the day? Respond using JSON"


class Sky(BaseModel):
    morning: str
    noon: str


@check
def an_answer():
    result = Agent(demo).run_sync("Why is the sky blue?")

    assert "Rayleigh scattering" in result.output
    assert result.usage.input_tokens > 0
    assert result.usage.output_tokens > 10


@check
def instructions():
    agent = Agent(demo, instructions="You are a pirate. Answer like a pirate.")
    assert "Arr" in agent.run_sync("who are you?").output


@check
def several_turns():
    agent = Agent(demo)
    first = agent.run_sync("Why is the sky blue?")
    second = agent.run_sync(
        "how is that different than mie scattering?", message_history=first.all_messages()
    )
    assert "Mie" in second.output


@check
def a_tool():
    agent = Agent(demo)
    cities = []

    @agent.tool_plain
    def get_current_weather(city: str) -> str:
        """Get the current weather for a city

        Args:
            city: The name of the city
        """
        cities.append(city)
        return "22 degrees"

    assert "22" in agent.run_sync("What is the weather today in Paris?").output
    assert cities == ["Paris"]


@check
def typed_output_by_schema():
    """The server lets the model say only what fits."""
    agent = Agent(demo, output_type=NativeOutput(Sky))
    assert isinstance(agent.run_sync(SKY).output, Sky)


@check
def typed_output_by_a_tool():
    agent = Agent(OllamaModel("calls-result", provider=ollama), output_type=Sky)
    result = agent.run_sync(SKY)
    assert result.output == Sky(morning="orange", noon="blue")
    assert isinstance(result.all_messages()[1].parts[-1], ToolCallPart)


@check
def typed_output_by_json_mode():
    agent = Agent(OllamaModel("says-sky", provider=ollama), output_type=PromptedOutput(Sky))
    assert agent.run_sync(SKY).output == Sky(morning="orange", noon="blue")


@check
async def a_stream():
    async with Agent(demo).run_stream("Why is the sky blue?") as result:
        parts = [part async for part in result.stream_text(delta=True, debounce_by=None)]
    assert len(parts) > 1
    assert "Rayleigh" in "".join(parts)


@check
def thinking():
    result = Agent(OllamaModel("thinks", provider=ollama)).run_sync("What is 2 + 2?")
    (thought,) = [
        part for part in result.all_messages()[-1].parts if isinstance(part, ThinkingPart)
    ]
    assert thought.content.strip() == "Two and two."
    assert result.output.strip() == "It is four."


@check
def the_models_of_openai():
    chat = Agent(OpenAIChatModel("demo", provider=openai, settings=QUIET)).run_sync(
        "Why is the sky blue?"
    )
    responses = Agent(OpenAIResponsesModel("demo", provider=openai, settings=QUIET)).run_sync(
        "Why is the sky blue?"
    )
    assert "Rayleigh" in chat.output
    assert "Rayleigh" in responses.output


@check
def an_image():
    agent = Agent(OllamaModel("sees", provider=ollama, settings={"max_tokens": 3}))
    image = BinaryContent(base64.b64decode(PIXEL), media_type="image/png")
    seen = agent.run_sync(["What is this?", image]).usage.input_tokens
    assert seen > agent.run_sync(["What is this?"]).usage.input_tokens + 8


@check
async def typed_output_in_a_stream():
    async with Agent(demo, output_type=NativeOutput(Sky)).run_stream(SKY) as result:
        parts = [part async for part in result.stream_output(debounce_by=None)]
    assert isinstance(parts[-1], Sky)


@check
async def tools_and_typed_output_in_a_stream():
    """The answer is a call itself, whose arguments arrive in pieces."""
    agent = Agent(OllamaModel("calls-result", provider=ollama), output_type=Sky)
    async with agent.run_stream(SKY) as result:
        assert await result.get_output() == Sky(morning="orange", noon="blue")
    events = []
    async with Agent(demo).run_stream_events("Why is the sky blue?") as stream:
        events = [type(event).__name__ async for event in stream]
    assert events[-1] == "AgentRunResultEvent"


@check
async def embeddings():
    provider = OpenAIProvider(base_url=f"{SERVER}/v1", api_key="unused")
    embedder = Embedder(OpenAIEmbeddingModel("demo-embed", provider=provider))
    assert len((await embedder.embed_documents(["a", "b"])).embeddings) == 2


@check
def errors():
    with raises(ModelNotFoundError, status_code=404):
        Agent(OllamaModel("nobody", provider=ollama)).run_sync("hi")


if __name__ == "__main__":
    run()
