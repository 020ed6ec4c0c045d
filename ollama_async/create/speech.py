"""How a model that is being made will be spoken to: what may be asked for, and what goes without
saying because its file shows it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ollama_async.api.ollama import CreateRequest
from ollama_async.core.errors import BadRequest, TemplateFailed
from ollama_async.create.layers import Assembly
from ollama_async.prompts import parsers, renderers
from ollama_async.prompts.go_template import parse_template
from ollama_async.prompts.known_templates import detect
from ollama_async.store.layout import Shelf
from ollama_async.store.manifest import Layer, go_json, layer_type

Status = dict[str, Any]
_SHOWN = 100
"""Characters of a name in an error."""


class _Family(msgspec.Struct, frozen=True):
    """A built-in format for files of an architecture, whatever template they have."""

    format: str
    stop: tuple[str, ...] = ()


_FAMILIES = {
    "gemma4": _Family("gemma4", ("<turn|>",)),
    "laguna": _Family("laguna"),
    "nemotron_h": _Family("nemotron-3-nano"),
    "nemotron_h_moe": _Family("nemotron-3-nano"),
}


def check_speech(request: CreateRequest) -> None:
    """:raises BadRequest: no Go template, or a renderer or parser that does not exist."""
    if request.template:
        try:
            parse_template(request.template)
        except TemplateFailed as error:
            raise BadRequest(f"template error: {error.message}") from None
    if request.renderer and renderers.named(request.renderer) is None:
        raise BadRequest(f'unknown renderer "{request.renderer[:_SHOWN]}"')
    if request.parser and parsers.named(request.parser) is None:
        raise BadRequest(f'unknown parser "{request.parser[:_SHOWN]}"')


def complete_speech(shelf: Shelf, model: Assembly, request: CreateRequest) -> list[Status]:
    """Give a model that is made from files what its files show, unless ``request`` says otherwise.

    Returns what there is to tell. Blocks; writes small blobs.
    """
    weights = next(layer.digest for layer in model.layers if layer.kind == "model")
    facts = shelf.facts.facts(weights)
    family = _FAMILIES.get(facts.architecture)
    if family is not None:
        if not (request.template or request.renderer or request.parser):
            model.config.renderer = model.config.parser = family.format
        _stop(shelf, model, family.stop)
        return []
    known = detect(facts.chat_template)
    if known is None:
        return []
    if not request.template:
        model.layers.append(_layer(shelf, "template", known.template.encode()))
    _stop(shelf, model, known.stop)
    return [{"status": f"using autodetected template {known.name}"}]


def _stop(shelf: Shelf, model: Assembly, texts: tuple[str, ...]) -> None:
    if texts:
        model.layers.append(_layer(shelf, "params", go_json({"stop": texts})))


def _layer(shelf: Shelf, kind: str, content: bytes) -> Layer:
    digest, _ = shelf.blobs.put(content)
    return Layer(layer_type(kind), digest, len(content))
