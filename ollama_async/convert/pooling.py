"""How an embedding model makes one vector of many: what sentence-transformers writes beside it."""

from __future__ import annotations

from typing import Any

from gguf import PoolingType

from ollama_async.convert.config_files import Document, Files, read_document, read_json
from ollama_async.core.errors import BadRequest

_MODES = {
    "pooling_mode_mean_tokens": PoolingType.MEAN,
    "pooling_mode_cls_token": PoolingType.CLS,
    "pooling_mode_lasttoken": PoolingType.LAST,
}


def pooling_fields(files: Files, is_embedding: bool) -> dict[str, Any]:
    """Keys below ``ARCHITECTURE.``; none for a model that is not for embeddings.

    :raises BadRequest: vectors are made in a way that llama.cpp does not know.
    """
    modules = read_json(files, "modules.json")
    if modules is None:
        return {"pooling_type": int(PoolingType.MEAN)} if is_embedding else {}
    steps = Document("modules.json", {"modules": modules}).sections("modules")
    for step in steps:
        kind = step.text("type", "").rpartition(".")[2]
        if kind == "Pooling":
            return {"pooling_type": int(_mode(files, step.text("path", "")))}
        if kind not in {"Transformer", "Normalize"}:
            raise BadRequest(f"modules.json has a step that does not convert: {kind[:80]!r}")
    return {"pooling_type": int(PoolingType.MEAN)} if is_embedding else {}


def _mode(files: Files, folder: str) -> PoolingType:
    name = f"{folder}/config.json"
    config = read_document(files, name)
    if config is None:
        raise BadRequest(f'"{name[:200]}", which modules.json names, is not there')
    chosen = [
        name
        for name, value in config.values.items()
        if name.startswith("pooling_mode") and value is not False
    ]
    if len(chosen) != 1 or chosen[0] not in _MODES or not config.flag(chosen[0]):
        raise BadRequest(
            f"{config.where}: vectors are pooled in a way that does not convert: "
            f"{', '.join(chosen)[:200] or 'none'}"
        )
    return _MODES[chosen[0]]
