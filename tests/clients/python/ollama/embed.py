"""`ollama` for Python: embeddings."""

import math

import ollama
from checks import SERVER, check, raises, run

client = ollama.Client(host=SERVER)


def length(vector):
    return math.sqrt(math.fsum(value * value for value in vector))


def likeness(one, other):
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / length(one) / length(other)


@check
def one_text():
    answer = client.embed(model="demo-embed", input="The sky is blue.")

    (vector,) = answer.embeddings
    assert math.isclose(length(vector), 1, rel_tol=1e-5)
    assert answer.prompt_eval_count > 0
    assert answer.model == "demo-embed"


@check
def several_texts_are_like_one_by_one():
    texts = ["The sky is blue.", "Llamas are members of the camelid family. " * 5, "Hi"]
    together = client.embed(model="demo-embed", input=texts).embeddings

    for text, vector in zip(texts, together, strict=True):
        (alone,) = client.embed(model="demo-embed", input=text).embeddings
        assert likeness(alone, vector) > 0.9999


@check
def fewer_dimensions():
    (vector,) = client.embed(model="demo-embed", input="sky", dimensions=16).embeddings

    assert len(vector) == 16
    assert math.isclose(length(vector), 1, rel_tol=1e-5)


@check
def a_text_that_is_too_long():
    text = "blue sky " * 5000
    assert len(client.embed(model="demo-embed", input=text).embeddings) == 1
    with raises(
        ollama.ResponseError,
        status_code=400,
        error="the input length exceeds the context length",
    ):
        client.embed(model="demo-embed", input=text, truncate=False)


@check
def nothing_loads_the_model():
    assert client.embed(model="demo-embed", input=[]).embeddings == []
    assert "demo-embed:latest" in [model.model for model in client.ps().models]


@check
def the_older_method():
    vector = client.embeddings(model="demo-embed", prompt="The sky is blue.").embedding
    (newer,) = client.embed(model="demo-embed", input="The sky is blue.").embeddings

    assert likeness(vector, newer) > 0.9999


@check
def errors():
    message = 'model "nobody" not found, try pulling it first'
    with raises(ollama.ResponseError, status_code=404, error=message):
        client.embed(model="nobody", input="x")
    with raises(ollama.ResponseError, status_code=404, error=message):
        client.embeddings(model="nobody", prompt="x")


@check
async def the_async_client():
    client = ollama.AsyncClient(host=SERVER)

    answer = await client.embed(model="demo-embed", input=["a", "b"])
    older = await client.embeddings(model="demo-embed", prompt="a")

    assert len(answer.embeddings) == 2
    assert len(older.embedding) == len(answer.embeddings[0])


if __name__ == "__main__":
    run()
