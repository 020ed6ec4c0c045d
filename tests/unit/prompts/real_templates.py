"""The chat templates that llama.cpp carries, and a renderer for each, made once for all tests."""

from functools import cache

from ollama_async.native import build
from ollama_async.prompts.jinja_renderer import JinjaRenderer

FOLDER = build.cache_folder() / "templates" / f"{build.DISTRIBUTION}-{build.VERSION}"
NAMES = sorted(path.name for path in FOLDER.glob("*.jinja"))


@cache
def renderer_of(name):
    return JinjaRenderer((FOLDER / name).read_text(), bos="<s>", eos="</s>")
