"""`instructor`: objects out of text, by each of its ways to ask for them."""

import instructor
import openai
from checks import SERVER, check, raises, run
from instructor.core import InstructorRetryException
from pydantic import BaseModel

HERE = {"base_url": f"{SERVER}/v1", "api_key": "unused"}
SKY = [
    {
        "role": "user",
        "content": "What color is the sky at different times of the day? Respond using JSON",
    }
]


class Sky(BaseModel):
    morning: str
    noon: str


def ask(mode, model="demo", **fields):
    client = instructor.from_openai(openai.OpenAI(**HERE), mode=mode)
    return client.chat.completions.create(
        model=model, messages=SKY, response_model=Sky, temperature=0, **fields
    )


@check
def by_provider():
    client = instructor.from_provider("ollama/says-sky", base_url=f"{SERVER}/v1")
    sky = client.chat.completions.create(messages=SKY, response_model=Sky)
    assert isinstance(sky, Sky)


@check
def by_json_schema():
    assert isinstance(ask(instructor.Mode.JSON_SCHEMA), Sky)


@check
def by_a_named_tool():
    assert isinstance(ask(instructor.Mode.TOOLS), Sky)


@check
def by_a_strict_tool():
    assert isinstance(ask(instructor.Mode.TOOLS_STRICT), Sky)


@check
def by_json_mode():
    assert isinstance(ask(instructor.Mode.JSON, "says-sky"), Sky)


@check
def parts_of_an_object():
    client = instructor.from_openai(openai.OpenAI(**HERE), mode=instructor.Mode.JSON_SCHEMA)
    *_, last = client.chat.completions.create_partial(
        model="demo", messages=SKY, response_model=Sky, temperature=0
    )
    assert last.noon


@check
def a_model_that_does_not_answer():
    with raises(InstructorRetryException):
        ask(instructor.Mode.MD_JSON, "refuses", max_retries=1)


@check
async def the_async_client():
    client = instructor.from_openai(openai.AsyncOpenAI(**HERE), mode=instructor.Mode.JSON_SCHEMA)
    sky = await client.chat.completions.create(
        model="demo", messages=SKY, response_model=Sky, temperature=0
    )
    assert isinstance(sky, Sky)


if __name__ == "__main__":
    run()
