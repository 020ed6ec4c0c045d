"""``WWW-Authenticate: Bearer realm="…",service="…",scope="…"``: where to ask for a token."""

from __future__ import annotations

import re

import msgspec
from yarl import URL

_SCHEME = re.compile(r"\s*bearer\s+", re.IGNORECASE)
_PARAMETER = re.compile(
    r"""\s*([A-Za-z][\w-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*))\s*(?:,|$)"""
)
_LONGEST = 8192


class Challenge(msgspec.Struct, frozen=True):
    realm: str
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, header: str) -> Challenge | None:
        """None: it asks for something else than a bearer's token, or makes no sense."""
        begin = _SCHEME.match(header)
        if begin is None or len(header) > _LONGEST:
            return None
        found: dict[str, str] = {}
        position = begin.end()
        while parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found.setdefault(name.lower(), value)
            position = parameter.end()
        if not found.get("realm"):
            return None
        return cls(found["realm"], found.get("service", ""), found.get("scope", ""))

    def url(self) -> URL:
        """Where to ask for a token. :raises ValueError: the realm is no address."""
        url = URL(self.realm)
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError("the realm is no address")
        query = [("service", self.service)] if self.service else []
        query += [("scope", scope) for scope in self.scope.split()]
        return url.with_user(None).with_fragment(None).extend_query(query)
