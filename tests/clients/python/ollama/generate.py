"""`ollama` for Python: answers to prompts."""

import ollama
from checks import SERVER, check, raises, run
from pydantic import BaseModel

client = ollama.Client(host=SERVER)


@check
def an_answer():
    answer = client.generate(model="demo", prompt="Why is the sky blue?")

    assert "Rayleigh scattering" in answer.response
    assert answer["response"] == answer.response
    assert (answer.model, answer.done, answer.done_reason) == ("demo", True, "stop")
    assert answer.prompt_eval_count > 0
    assert answer.eval_count > 10
    assert answer.total_duration >= answer.load_duration + answer.eval_duration > 0


@check
def a_stream():
    *parts, last = client.generate(model="demo", prompt="Why is the sky blue?", stream=True)

    assert len(parts) > 1
    assert not any(part.done for part in parts)
    assert "Rayleigh scattering" in "".join(part.response for part in parts)
    assert (last.done, last.done_reason) == (True, "stop")


@check
def a_continued_answer():
    first = client.generate(model="demo", prompt="Why is the sky blue?", think=False)
    second = client.generate(
        model="demo", prompt="how is that different than mie scattering?", context=first.context
    )
    assert "Mie" in second.response


@check
def a_system_text_and_a_template():
    template = "{{ .System }}!{{ .Prompt }}"
    answer = client.generate(
        model="demo", system="s", prompt="p", template=template, options={"num_predict": 1}
    )
    assert answer.eval_count == 1
    assert answer.done_reason == "length"


@check
def a_raw_prompt():
    question = "<|im_start|>user\nSay this is a test<|im_end|>\n<|im_start|>assistant\n"
    prompt = f"{question}<think>\n\n</think>\n\n"
    answer = client.generate(model="demo", prompt=prompt, raw=True)

    assert answer.response == "This is a test."
    assert answer.context is None


@check
def the_middle_of_a_text():
    answer = client.generate(model="fills", prompt="def add(", suffix="    return c")
    assert answer.response == "def add(<here>    return c"


@check
def options():
    def said(**options):
        return client.generate(
            model="demo", prompt="Tell me a story", options={"num_predict": 12, **options}
        ).response

    assert said(seed=7, temperature=1.5) == said(seed=7, temperature=1.5)
    assert said(temperature=0) == said(temperature=0, seed=3)
    answer = client.generate(model="story", prompt="x", options=ollama.Options(stop=["time"]))
    assert answer.response == "Once upon a "


@check
def json():
    prompt = "What color is the sky at different times of the day? Respond using JSON"
    answer = client.generate(model="demo", prompt=prompt, format="json", think=False)
    assert answer.response.startswith("{")


@check
def an_object_of_pydantic():
    class Person(BaseModel):
        name: str
        age: int

    prompt = "Ollama is 22 years old and is busy saving the world. Respond using JSON"
    answer = client.generate(model="demo", prompt=prompt, format=Person.model_json_schema())

    assert Person.model_validate_json(answer.response)


@check
def thinking():
    answer = client.generate(model="demo", prompt="What is 17 + 25?", think=True)
    *parts, _ = client.generate(model="demo", prompt="What is 17 + 25?", think=True, stream=True)

    assert answer.thinking
    assert answer.response
    assert "".join(part.thinking or "" for part in parts) == answer.thinking
    assert "".join(part.response for part in parts) == answer.response
    assert not client.generate(model="demo", prompt="What is 17 + 25?", think=False).thinking


@check
def logprobs():
    answer = client.generate(
        model="demo", prompt="Say this is a test", think=False, logprobs=True, top_logprobs=3
    )
    assert "".join(each.token for each in answer.logprobs) == answer.response
    for each in answer.logprobs:
        assert each.logprob <= 0
        assert len(each.top_logprobs) == 3
        assert each.top_logprobs[0].logprob >= each.logprob


@check
def characters_that_python_takes_for_the_end_of_a_line():
    text = "a\x85b\u2028c\u2029d\x0be"
    parts = client.generate(model="echo", prompt=text, raw=True, stream=True)
    assert "".join(part.response for part in parts) == text


@check
def loading_and_unloading():
    def running():
        return {model.model for model in client.ps().models}

    assert client.generate(model="refuses").done_reason == "load"
    assert "refuses:latest" in running()
    assert client.generate(model="refuses", keep_alive=0).done_reason == "unload"
    while "refuses:latest" in running():
        pass


@check
def errors():
    with raises(ollama.ResponseError, status_code=404, error="model 'nobody' not found"):
        client.generate(model="nobody", prompt="x")
    with raises(ollama.ResponseError, status_code=404, error="model 'nobody' not found"):
        next(client.generate(model="nobody", prompt="x", stream=True))
    with raises(ollama.ResponseError, status_code=400):
        client.generate(model="story", prompt="x", think=True)
    with raises(ollama.ResponseError, status_code=400):
        client.generate(model="demo", prompt="x", suffix="y")


@check
def an_error_in_the_middle():
    with raises(ollama.ResponseError) as error:
        for part in client.generate(model="dies-ollama", prompt="x", stream=True):
            assert part.response in {"Once ", "upon ", "Once upon "}
    assert "unexpectedly stopped" in error.value.error


@check
async def the_async_client():
    client = ollama.AsyncClient(host=SERVER)

    answer = await client.generate(model="demo", prompt="Say this is a test", think=False)
    stream = await client.generate(
        model="demo", prompt="Say this is a test", think=False, stream=True
    )
    assert answer.response == "This is a test."
    assert "".join([part.response async for part in stream]) == "This is a test."
    with raises(ollama.ResponseError, status_code=404):
        await client.generate(model="nobody", prompt="x")


@check
async def a_stream_that_is_left():
    client = ollama.AsyncClient(host=SERVER)
    stream = await client.generate(model="endless", prompt="x", stream=True)
    async for part in stream:
        assert part.response
        break
    await stream.aclose()


if __name__ == "__main__":
    run()
