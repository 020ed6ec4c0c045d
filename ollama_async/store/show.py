"""Describes one model for ``/api/show``, with the Modelfile that would create it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.api import encode
from ollama_async.api.encode import LongParts
from ollama_async.api.modelfile import Command
from ollama_async.api.ollama_models import ShowRequest, ShowResponse
from ollama_async.core.errors import BadRequest, LoadFailed
from ollama_async.gguf.metadata import GgufDescription, describe
from ollama_async.prompts.chat_format import DEFAULT_TEMPLATE
from ollama_async.store.cache import FileCache
from ollama_async.store.files import file_signature, read_bounded
from ollama_async.store.manifests import LICENSES_LIMIT, TEXT_LIMIT_BYTES
from ollama_async.store.model import Model

_ELSEWHERE = ("general.name", "tokenizer.chat_template")
"""Metadata in other fields of the response."""
_KEY_COLUMNS = 30
_LIMIT_BYTES = 32 << 20
_TENSOR_BYTES = 400
_VALUE_BYTES = 200


class DescriptionCache:
    """Descriptions of GGUF files without long values, which ``run`` requests on every start.

    Errors are cached, too. Thread-safe.
    """

    def __init__(self) -> None:
        self._descriptions: FileCache[GgufDescription] = FileCache(_LIMIT_BYTES)

    def describe(self, path: str) -> GgufDescription:
        """As :func:`.metadata.describe`, not verbose."""
        make = partial(describe, path, is_verbose=False)
        return self._descriptions.get_or_make(path, file_signature(path), make, _memory_bytes)


def _memory_bytes(description: GgufDescription) -> int:
    texts = (text for text in description.metadata.values() if isinstance(text, str))
    parts = _TENSOR_BYTES * len(description.tensors) + _VALUE_BYTES * len(description.metadata)
    return parts + sum(map(sys.getsizeof, texts))


def show(
    model: Model, request: ShowRequest, cache: DescriptionCache, long: LongParts
) -> ShowResponse:
    """Describe ``model``, with the system text and options of ``request`` in place of its own.

    Long parts become placeholders of ``long``. Blocks, with ``verbose`` up to a second; then the
    response may have 100 MB.

    :raises LoadFailed: a file of the model is missing or broken.
    """
    try:
        return _show(model, request, cache, long)
    except (BadRequest, OSError) as error:
        reason = error.message if isinstance(error, BadRequest) else error.strerror or error
        raise LoadFailed(f"model '{model.name}' is broken: {reason}") from error


def _show(
    model: Model, request: ShowRequest, cache: DescriptionCache, long: LongParts
) -> ShowResponse:
    model = msgspec.structs.replace(
        model,
        system=request.system or model.system,
        parameters=model.parameters | request.options,
    )
    licenses = [_text(path) for path in model.licenses[:LICENSES_LIMIT]]
    file = _describe(model.path, request, cache) if model.engine == "llama_cpp" else _SCRIPTED
    projector = _describe(model.projectors[0], request, cache).metadata if model.projectors else {}
    return ShowResponse(
        license="\n".join(map(long.text, licenses)),
        modelfile=_modelfile(model, licenses, long),
        parameters=_parameters(model.parameters),
        template=long.text(_template(model)),
        system=long.text(model.system),
        details=model.details,
        messages=[
            {"role": turn.role, "content": turn.content} | msgspec.to_builtins(turn)
            for turn in model.messages
        ],
        model_info={
            key: long.value(value) for key, value in file.metadata.items() if key not in _ELSEWHERE
        },
        projector_info=projector,
        tensors=file.tensors,
        capabilities=list(model.capabilities),
        modified_at=encode.local(model.modified_at),
        requires=model.requires,
    )


def _template(model: Model) -> str:
    """The template in force: the model's Go template, or the Jinja text in its file."""
    if model.selection == "gguf_chat_template":
        return model.summary.chat_template
    return model.template or DEFAULT_TEMPLATE


_SCRIPTED = GgufDescription({"general.architecture": "scripted", "general.parameter_count": 0}, [])


def _describe(path: str, request: ShowRequest, cache: DescriptionCache) -> GgufDescription:
    return describe(path, is_verbose=True) if request.verbose else cache.describe(path)


def _text(path: str) -> str:
    return read_bounded(Path(path), TEXT_LIMIT_BYTES).decode(errors="replace")


def _parameters(parameters: Mapping[str, Any]) -> str:
    lines = (f"{key:<{_KEY_COLUMNS}} {_literal(value)}" for key, value in _flattened(parameters))
    return "\n".join(lines)


def _flattened(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Pairs sorted by key; a list gives one pair for each element."""
    for key in sorted(parameters):
        value = parameters[key]
        for each in value if isinstance(value, list) else [value]:
            yield key, each


def _literal(value: Any) -> str:
    """Texts quoted and escaped; whole numbers without a decimal point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return msgspec.json.encode(value).decode()


def _modelfile(model: Model, licenses: list[str], long: LongParts) -> str:
    head = (
        '# Modelfile generated by "ollama show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        f"# FROM {model.name}\n\n"
    )
    lines = (long.text(_line(command)) for command in _commands(model, licenses))
    return head + "".join(f"{line}\n" for line in lines)


def _commands(model: Model, licenses: list[str]) -> Iterator[Command]:
    yield Command("from", model.path)
    for name, paths in (
        ("adapter", model.adapters),
        ("draft", model.drafts),
        ("from", model.projectors),
    ):
        for path in paths:
            yield Command(name, path)
    # A default would override a template in the GGUF when a model is created from this text.
    template = model.template or ("" if model.summary.chat_template else DEFAULT_TEMPLATE)
    for name, text in (
        ("template", template),
        ("system", model.system),
        ("renderer", model.renderer),
        ("parser", model.parser),
        ("requires", model.requires),
    ):
        if text:
            yield Command(name, text)
    for key, value in _flattened(model.parameters):
        yield Command("parameter", value if isinstance(value, str) else _literal(value), key)
    for text in licenses:
        yield Command("license", text)
    for turn in model.messages:
        yield Command("message", turn.content, turn.role)


def _line(command: Command) -> str:
    try:
        return str(command)
    except ValueError:  # not expressible with quotes, but readable
        words = (command.name.upper(), command.key, f'"""{command.value}"""')
        return " ".join(filter(None, words))
