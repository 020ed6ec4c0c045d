"""Model names: ``[[scheme://host/]namespace/]model[:tag]``, with Ollama's grammar and limits.

A valid name is a safe path: every part begins with a letter, digit or ``_`` and has no slash, so no
name leaves its folder. Names keep their case, but are compared without it.
"""

from __future__ import annotations

import re

import msgspec

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_WORD = "[A-Za-z0-9_]"
_PART_PATTERNS = {
    "host": re.compile(rf"{_WORD}[A-Za-z0-9_.:-]{{0,349}}"),
    "namespace": re.compile(rf"{_WORD}[A-Za-z0-9_-]{{0,79}}"),
    "model": re.compile(rf"{_WORD}[A-Za-z0-9_.-]{{0,79}}"),
    "tag": re.compile(rf"{_WORD}[A-Za-z0-9_.-]{{0,79}}"),
}
_LONGEST = 350 + 3 * 80 + len("https://") + 3


class ModelName(msgspec.Struct, frozen=True, order=True):
    """A complete name. Create it with :meth:`parse` or :meth:`from_parts`."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Parse a reference and add defaults for missing parts. A scheme is dropped.

        :raises ValueError: ``invalid model name``.
        """
        if len(text) > _LONGEST:
            raise ValueError("invalid model name")
        rest, tag = text, DEFAULT_TAG
        if text.rfind(":") > text.rfind("/"):
            rest, _, tag = text.rpartition(":")
        rest, slash, model = rest.rpartition("/")
        host, namespace = DEFAULT_HOST, DEFAULT_NAMESPACE
        if slash:
            rest, slash, namespace = rest.rpartition("/")
        if slash:
            _, scheme, after = rest.partition("://")
            host = after if scheme else rest
        return cls.from_parts(host, namespace, model, tag)

    @classmethod
    def from_parts(cls, host: str, namespace: str, model: str, tag: str) -> ModelName:
        """The name with these four parts.

        :raises ValueError: ``invalid model name``.
        """
        parts = {"host": host, "namespace": namespace, "model": model, "tag": tag}
        if not all(_PART_PATTERNS[kind].fullmatch(part) for kind, part in parts.items()):
            raise ValueError("invalid model name")
        return cls(host, namespace, model, tag)

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Host, namespace, model, tag: the folders of the manifest and its file name."""
        return self.host, self.namespace, self.model, self.tag

    @property
    def short(self) -> str:
        """The display form: default host and namespace are omitted, the tag never is."""
        tail = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{tail}"
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{tail}"
        return tail

    @property
    def full(self) -> str:
        """``registry.ollama.ai/library/x:latest``."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def manifest_path(self) -> str:
        """Path of the manifest, relative to the store's ``manifests`` folder."""
        return "/".join(self.parts)

    @property
    def folded(self) -> ModelName:
        """The key for comparing: lower case."""
        return ModelName(*(part.lower() for part in self.parts))

    def __str__(self) -> str:
        return self.short


class Reference(msgspec.Struct, frozen=True):
    """A client's model reference without its source suffix, and whether that is the cloud."""

    text: str
    is_cloud: bool = False


def split_source(text: str) -> Reference:
    """Remove the source suffix: ``:cloud``, ``:local``, or a tag's ``-cloud``.

    :raises ValueError: nothing is left, or there are two suffixes.
    """
    text = text.strip()
    if not text:
        raise ValueError("model is required")
    base, is_cloud, has_suffix = _without_suffix(text)
    if has_suffix and _without_suffix(base)[2]:
        raise ValueError(f'use either :local or :cloud, not both: "{text}"')
    return Reference(base, is_cloud)


def names_cloud_model(text: str) -> bool:
    try:
        return split_source(text).is_cloud
    except ValueError:
        return False


def _without_suffix(text: str) -> tuple[str, bool, bool]:
    """Text without its suffix, whether that was the cloud, whether there was one."""
    base, colon, tag = text.rpartition(":")
    word = tag.lower()
    if not colon or "/" in tag:
        return text, False, False
    if word in {"cloud", "local"}:
        return base, word == "cloud", True
    if word.endswith("-cloud"):
        return text[: -len("-cloud")], True, True
    return text, False, False
