"""`langchain-ollama`: `OllamaEmbeddings` and `OllamaLLM`."""

import math

from checks import SERVER, check, raises, run
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_ollama import OllamaEmbeddings, OllamaLLM
from pydantic import ValidationError

embeddings = OllamaEmbeddings(model="demo-embed", base_url=SERVER)
llm = OllamaLLM(model="demo", base_url=SERVER, reasoning=False)


@check
def embed_query_and_documents():
    vector = embeddings.embed_query("What is the meaning of LangChain?")
    vectors = embeddings.embed_documents(["What is the meaning of LangChain?", "The sky is blue."])

    assert len(vectors) == 2
    assert math.isclose(
        sum(a * b for a, b in zip(vector, vectors[0], strict=True)), 1, abs_tol=1e-3
    )
    assert sum(a * b for a, b in zip(vector, vectors[1], strict=True)) < 0.99


@check
async def aembed_query_and_documents():
    vector = await embeddings.aembed_query("a")
    vectors = await embeddings.aembed_documents(["a", "b"])
    assert len(vector) == len(vectors[0]) == len(vectors[1])


@check
def fewer_dimensions():
    small = OllamaEmbeddings(model="demo-embed", base_url=SERVER, dimensions=8)
    assert len(small.embed_query("a")) == 8


@check
def a_vector_store():
    texts = ["The sky is blue.", "A llama is an animal."]
    store = InMemoryVectorStore.from_texts(texts, embedding=embeddings)
    (found,) = store.as_retriever(search_kwargs={"k": 1}).invoke("The sky is blue.")
    assert found.page_content == "The sky is blue."


@check
def the_language_model():
    prompt = ChatPromptTemplate.from_template("{question}")
    assert "Rayleigh" in (prompt | llm).invoke({"question": "Why is the sky blue?"})
    assert "Rayleigh" in "".join(llm.stream("Why is the sky blue?"))
    assert ["computer" in text for text in llm.batch(["Tell me a joke"] * 2)] == [True, True]


@check
async def the_language_model_async():
    assert "Rayleigh" in await llm.ainvoke("Why is the sky blue?")
    assert "Rayleigh" in "".join([part async for part in llm.astream("Why is the sky blue?")])


@check
def validate_model_on_init():
    OllamaLLM(model="demo", base_url=SERVER, validate_model_on_init=True)
    OllamaEmbeddings(model="demo-embed", base_url=SERVER, validate_model_on_init=True)
    with raises(ValidationError):
        OllamaLLM(model="nobody", base_url=SERVER, validate_model_on_init=True)
    with raises(ValidationError):
        OllamaEmbeddings(model="nobody", base_url=SERVER, validate_model_on_init=True)


if __name__ == "__main__":
    run()
