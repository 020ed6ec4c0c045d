"""`ollama` for Python: models are sent to a registry and fetched from it."""

import os

import ollama
from checks import SERVER, check, raises, run

client = ollama.Client(host=SERVER)

REGISTRY = os.environ.get("REGISTRY", "127.0.0.1:5000")
"""A registry server that speaks plain HTTP, hence `insecure`."""


@check
def to_a_registry_and_back():
    name = f"{REGISTRY}/clients/demo"
    client.copy("demo", name)
    pushed = [*client.push(name, insecure=True, stream=True)]
    assert pushed[-1].status == "success"
    assert any(part.completed == part.total > 0 for part in pushed if part.total)

    client.delete(name)
    pulled = [*client.pull(name, insecure=True, stream=True)]
    assert pulled[-1].status == "success"
    assert any(part.digest for part in pulled)
    assert client.show(name).details.family == "llama"

    assert client.push(name, insecure=True).status == "success"
    assert client.pull(name, insecure=True).status == "success"
    client.delete(name)
    with raises(ollama.ResponseError):
        client.pull(f"{REGISTRY}/clients/nobody", insecure=True)


@check
def a_model_of_the_package_needs_no_registry():
    assert client.pull("demo").status == "success"


@check
async def the_async_client():
    client = ollama.AsyncClient(host=SERVER)
    name = f"{REGISTRY}/clients/async"
    await client.copy("demo", name)
    pushed = await client.push(name, insecure=True, stream=True)
    assert [part.status async for part in pushed][-1] == "success"
    assert (await client.push(name, insecure=True)).status == "success"

    await client.delete(name)
    pulled = await client.pull(name, insecure=True, stream=True)
    assert [part.status async for part in pulled][-1] == "success"
    assert (await client.pull(name, insecure=True)).status == "success"
    await client.delete(name)


if __name__ == "__main__":
    run()
