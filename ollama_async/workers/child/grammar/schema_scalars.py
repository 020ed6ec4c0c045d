"""Patterns as the library reads them.

JSON Schema's are those of ECMAScript, the library's those of Rust: a few characters mean something
else there. And it has no look-around.

- A look-ahead at the very beginning is a condition on the whole string, so it can be a pattern of
  its own. What must not follow there can be said so in the cases that stand here.
- Patterns that libraries put into schemas are known by their text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ollama_async.workers.child.grammar_tree import Schema

AHEAD_LIMIT = 8
"""Look-aheads that are looked for in one pattern; each takes a pass over it."""

_NOT_AHEAD = {
    r"\.": r"^(?:[^.]|$)",
    r".*\.\.": r"^\.?(?:[^.]+\.?)*$",
    r"\s*$": r"\S",
    "$": r"[\s\S]",
    "^[-+.]*$": "[^-+.]",
}
"""The strings that do not begin so; of those with line ends maybe fewer."""

_ELEMENT = re.compile(r"\\.|\[\^?(?:\\.|[^\]\\])+(?P<closed>\])?|[.\[]", re.DOTALL)
"""What does not stand for itself: an escape, a class, a dot, and a bracket that begins no class."""

_ATOMS = re.compile(
    r"\\[pP]\{[^}\\]*+\}|\\u\{[^}\\]*+\}|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\?.", re.DOTALL
)
_SETS = re.compile(r"\\[dDwWsSpP]")

_REPEATED = re.compile(r"\^(?P<one>\[\^?(?:\\.|[^\]\\])+\]|\\[dws]|\.)(?P<often>[+*])\$")
"""Any number of characters of one kind."""


def _duration(seconds: str) -> str:
    date = r"(?:\d+Y(?:\d+M)?(?:\d+D)?|\d+M(?:\d+D)?|\d+D)"
    time = rf"T(?:\d+H(?:\d+M)?(?:{seconds})?|\d+M(?:{seconds})?|{seconds})"
    return rf"^P(?:\d+W|{date}(?:{time})?|{time})$"


_KNOWN = {
    # Zod's durations
    r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?"
    r"(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$": _duration(r"\d+(?:[.,]\d+)?S")
}

_DECIMAL = re.compile(
    re.escape(r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,")
    + r"(?P<whole>\d{1,2})"
    + re.escape(r"}|(?=[\d.]{1,")
    + r"(?P<all>\d{1,2})"
    + re.escape(r"}0*$)\d")
    + r"(?:\*|\{0,\d+\})"
    + re.escape(r"\.\d")
    + r"(?:\*|\{0,(?P<places>\d{1,2})\})"
    + re.escape("0*$)")
)
"""Pydantic's decimal numbers of so many digits before the point and after it, and in all (with the
point)."""

_LEAP_YEAR = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = (
    r"(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    rf"|02-(?:0[1-9]|1\d|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"

_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_WORD = r"[a-zA-Z0-9_+-]+"
_URI_CHARACTER = r"[a-zA-Z0-9._~!$&'()*+,;=:@-]"

OF_FORMATS = {
    "date": f"^{_DATE}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "duration": _duration(r"\d+S"),
    "email": rf"^{_WORD}(?:\.{_WORD})*@{_LABEL}(?:\.{_LABEL})+$",
    "hostname": rf"^{_LABEL}(?:\.{_LABEL})*$",
    "ipv4": rf"^(?:{_BYTE}\.){{3}}{_BYTE}$",
    "ipv6": "^[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){7}$",
    "time": f"^{_TIME}$",
    "uri": (
        rf"^[a-zA-Z][a-zA-Z0-9+.-]*://{_LABEL}(?:\.{_LABEL})*(?::\d+)?"
        rf"(?:/{_URI_CHARACTER}*)*(?:\?{_URI_CHARACTER}*)?(?:#{_URI_CHARACTER}*)?$"
    ),
    "uuid": "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
}
"""What a format means, or its usual forms, where it has to be said as a pattern."""

_CALENDAR = {
    "date": f"^{_DATE}",
    "date-time": rf"^{_DATE}[tT]\d\d:\d\d:[0-5]",
    "time": r"^\d\d:\d\d:[0-5]",
}
"""What the library's formats leave open: for it any year has a 29 February and any minute a leap
second."""


def simplify(schema: Schema) -> None:
    """Say the patterns of ``schema`` as the library reads them, as far as possible.

    A ``format`` of dates or times gets one as well.
    """
    if "patternProperties" in schema:
        named = schema["patternProperties"]
        translated = {_translate(pattern): value for pattern, value in named.items()}
        # two that are the same then would be one
        schema["patternProperties"] = translated if len(translated) == len(named) else named
    pattern, all_of = schema.get("pattern", ""), schema.get("allOf", [])
    if not isinstance(pattern, str) or not isinstance(all_of, list):
        return
    patterns = without_look_around(pattern) if pattern else []
    if schema.get("format") in _CALENDAR:
        patterns.append(_CALENDAR[schema["format"]])
    if patterns:
        schema["pattern"] = patterns[0]
    if patterns[1:]:
        schema["allOf"] = [*all_of, *({"pattern": each} for each in patterns[1:])]


def without_look_around(pattern: str) -> list[str]:
    """The patterns that together mean ``pattern``, for the library; look-around that has to stay is
    left in.
    """
    found = [_KNOWN.get(pattern) or _decimal(pattern) or pattern]
    for _ in range(AHEAD_LIMIT):
        split = _split(found[0])
        if split is None:
            break
        found = [split[0], *found[1:], split[1]]
    return [_translate(each) for each in found]


def _decimal(pattern: str) -> str | None:
    """The numbers that Pydantic means; what it writes lets more pass."""
    found = _DECIMAL.fullmatch(pattern)
    if found is None:
        return None
    whole, places = int(found["whole"]), int(found["places"] or 99)
    branches = [rf"\d{{1,{max(whole, 1)}}}"] if whole else ["0"]
    for digits in range(whole + 1):
        most = min(places, int(found["all"]) - 1 - digits)
        before = rf"\d{{{digits}}}" if digits else "0?"
        branches += [rf"{before}\.\d{{1,{most}}}"] if most > 0 else []
    return f"^[+-]?(?:{'|'.join(branches)})$"


def with_lengths(pattern: str, least: int, most: int | None) -> str | None:
    """``pattern`` for strings of a length; None: it is not as simple as that."""
    found = _REPEATED.fullmatch(pattern)
    if found is None:
        return None
    least = max(least, 1) if found["often"] == "+" else least
    return f"^{found['one']}{{{least},{'' if most is None else most}}}$"


def _split(pattern: str) -> tuple[str, str] | None:
    """The pattern without the look-ahead that it begins with, and what that one says."""
    if not pattern.startswith(("^(?=", "^(?!")) or _has_empty_class(pattern):
        return None
    structure = list(_structure(pattern))
    end = next((at for at, depth, _ in structure if depth == 0 and at > 1), None)
    if end is None or pattern[end + 1 : end + 2] in {"*", "+", "?", "{"}:
        return None
    if any(depth == 0 and character == "|" for _, depth, character in structure):
        return None  # it belongs to the first branch only
    inner = pattern[len("^(?=") : end]
    condition = f"^(?:{inner})" if pattern[3] == "=" else _NOT_AHEAD.get(inner)
    return None if condition is None else (f"^{pattern[end + 1 :]}", condition)


def _structure(pattern: str) -> Iterator[tuple[int, int, str]]:
    """Where the groups and branches of ``pattern`` are, with the depth behind each."""
    depth, in_class, is_escaped = 0, False, False
    for at, character in enumerate(pattern):
        if is_escaped or character == "\\":
            is_escaped = not is_escaped
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character in "()|":
            depth += {"(": 1, ")": -1}.get(character, 0)
            yield at, depth, character


def _translate(pattern: str) -> str:
    """A pattern of ECMAScript as one of Rust."""
    if _has_empty_class(pattern):  # whoever writes that thinks of yet another language
        return pattern
    return _ELEMENT.sub(_translate_element, pattern)


def _has_empty_class(pattern: str) -> bool:
    return any(found[0] == "[" for found in _ELEMENT.finditer(pattern))


def _translate_element(found: re.Match[str]) -> str:
    if found["closed"]:
        return _of_class(found[0])
    return r"[^\n\r\u2028\u2029]" if found[0] == "." else found[0]


def _of_class(text: str) -> str:
    """A class of characters: in Rust brackets nest there, and there are operators of two signs."""
    head = "[^" if text.startswith("[^") else "["
    atoms = _ATOMS.findall(text[len(head) : -1])
    written, can_begin_range, ends_range = [head], False, False
    for at, atom in enumerate(atoms):
        if atom == "-" and can_begin_range and at + 1 < len(atoms):
            written.append("-")
            can_begin_range, ends_range = False, True
            continue
        written.append(f"\\{atom}" if atom in {"-", "[", "&", "~"} else atom)
        can_begin_range, ends_range = not (ends_range or _SETS.match(atom)), False
    return f"{''.join(written)}]"
