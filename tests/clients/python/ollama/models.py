"""`ollama` for Python: models are listed, shown, made, copied and removed."""

import tempfile
from pathlib import Path

import ollama
from checks import SERVER, check, raises, run

client = ollama.Client(host=SERVER)


def names():
    return {model.model for model in client.list().models}


@check
def a_list():
    (demo,) = [model for model in client.list().models if model.model == "demo:latest"]

    assert demo.size > 1_000_000
    assert demo.modified_at is not None
    assert len(demo.digest) == 64
    assert (demo.details.format, demo.details.family) == ("gguf", "llama")


@check
def everything_about_a_model():
    shown = client.show("demo")

    assert shown.details.family == "llama"
    assert shown.modelinfo["general.architecture"] == "llama"
    assert "tools" in shown.capabilities
    assert shown.license.startswith("MIT")
    assert shown.modelfile
    assert shown.modified_at is not None
    with raises(ollama.ResponseError, status_code=404):
        client.show("nobody")


@check
def running_models():
    client.generate(model="demo", keep_alive="10m")
    (demo,) = [model for model in client.ps().models if model.model == "demo:latest"]

    assert demo.size > 1_000_000
    assert demo.expires_at is not None
    assert demo.context_length > 0


@check
def a_model_from_another():
    created = client.create(
        model="mario",
        from_="demo",
        system="You are Mario from Super Mario Bros. Answer as Mario, the assistant, only.",
        parameters={"temperature": 0, "stop": ["!"]},
        license=["One", "Two"],
        messages=[{"role": "user", "content": "hi"}],
    )
    assert created.status == "success"
    shown = client.show("mario")
    assert "Mario" in shown.modelfile
    assert "temperature" in shown.parameters
    assert client.delete("mario").status == "success"


@check
def a_model_from_a_file():
    """The file goes to the server as a blob, named by its digest."""
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(folder) / "notes.txt"
        adapter.write_text("not a model")
        digest = client.create_blob(adapter)
    assert digest.startswith("sha256:")
    with raises(ollama.ResponseError):
        client.create(model="broken", files={"model.gguf": digest})
    assert "broken:latest" not in names()


@check
def progress_of_making_a_model():
    statuses = [part.status for part in client.create(model="made", from_="demo", stream=True)]

    assert statuses[-1] == "success"
    assert len(statuses) > 1
    client.delete("made")


@check
def a_copy():
    assert client.copy("demo", "copied").status == "success"
    assert "copied:latest" in names()
    assert client.delete("copied").status == "success"
    assert "copied:latest" not in names()
    with raises(ollama.ResponseError, status_code=404):
        client.delete("copied")


@check
async def the_async_client():
    client = ollama.AsyncClient(host=SERVER)

    async def listed():
        return {model.model for model in (await client.list()).models}

    assert "demo:latest" in await listed()
    assert (await client.show("demo")).details.family == "llama"
    assert (await client.create(model="made", from_="demo")).status == "success"
    assert (await client.copy("made", "copied")).status == "success"
    for name in ("made", "copied"):
        assert (await client.delete(name)).status == "success"
    assert not {"made:latest", "copied:latest"} & await listed()
    assert isinstance((await client.ps()).models, list)
    with tempfile.NamedTemporaryFile() as file:
        assert await client.create_blob(file.name)


@check
def what_this_server_has_not():
    """Decisions came with a later Ollama."""
    question = {"type": "noul", "instructions": "Is it blue?"}
    with raises(ollama.ResponseError, status_code=404):
        client.systemone(model="demo", state="The sky", questions={"blue": question})


if __name__ == "__main__":
    run()
