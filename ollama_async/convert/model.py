"""A directory of safetensors into one GGUF file: the whole of the work, in its order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ollama_async.convert.added_tokens import added_fields
from ollama_async.convert.architectures import Family, family_of
from ollama_async.convert.config_files import Document, Files, read_document
from ollama_async.convert.gguf_writer import FILE_TYPES, write
from ollama_async.convert.pooling import pooling_fields
from ollama_async.convert.special_tokens import special_fields
from ollama_async.convert.tensors import EMBEDDING, Kind, network, published_kind
from ollama_async.convert.tokenizer import read_documents, read_vocabulary
from ollama_async.convert.weights import Weights
from ollama_async.core.errors import BadRequest


def convert_model(files: Files, out: Path, kind: Kind | None = None) -> Iterator[tuple[int, int]]:
    """Make the GGUF at ``out``; yields bytes done and in all, every few megabytes.

    ``files``: name in the published directory to where the content lies. ``kind``: of the matrices;
    by default BF16 stays BF16 and all else becomes F16. Blocks on the disk and computes: draw it in
    a thread. Memory holds the tokenizer and some 100 MB. Closing the iterator stops the work; what
    is at ``out`` then, or after an error, is of no use.

    :raises BadRequest: the files are not sound, or of a kind that is not converted.
    :raises OSError: a file cannot be read, or ``out`` not be written.
    """
    config = read_document(files, "config.json") or Document("config.json", {})
    family, inner = family_of(config)
    described = family.fields(inner)
    with Weights(files) as weights:
        kind = kind or published_kind(weights)
        tensors = network(family, inner, weights, kind)
        size = next(tensor.shape[0] for tensor in tensors if tensor.name == EMBEDDING)
        fields = {
            "general.type": "model",
            "general.file_type": int(FILE_TYPES[kind]),
            **_below(family.architecture, described),
            **_below(family.architecture, pooling_fields(files, family.is_embedding)),
            f"{family.architecture}.vocab_size": size,
            **_tokenizer_fields(files, family, inner, size),
        }
        yield from write(out, family.architecture, fields, tensors)


def _below(architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {f"{architecture}.{key}": value for key, value in fields.items()}


def _tokenizer_fields(files: Files, family: Family, config: Document, size: int) -> dict[str, Any]:
    documents = read_documents(files)
    vocabulary = read_vocabulary(files, documents)
    fields = vocabulary.fields(size)
    fields |= special_fields(files, documents, config, vocabulary, size)
    fields |= added_fields(documents, vocabulary, size)
    if family.architecture == "bert":
        fields["tokenizer.ggml.token_type_count"] = config.count("type_vocab_size", 2)
    elif vocabulary.model == "gpt2" and "tokenizer.ggml.eos_token_id" not in fields:
        # llama.cpp would take token 11, an ordinary one, for the end.
        raise BadRequest("no file says which token ends an answer (eos_token)")
    return fields
