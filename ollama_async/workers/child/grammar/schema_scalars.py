"""Rewrites of numeric bounds and string patterns in JSON Schemas, as llguidance can enforce them.

**Bounds.** The library reads bounds as floating-point numbers and compares digits. A bound with
more digits than such a number has would admit what it forbids. So it moves inwards, by less than
one part in 10^14 (integers: 10^15), and no bound is farther from zero than 2^63.

**Patterns.** JSON Schema uses ECMAScript's regular expressions, the library Rust's, which have no
look-around. A look-ahead at the very beginning is a condition on the whole string, so it becomes a
pattern of its own; negative ones only in the cases listed here. Some patterns that validation
libraries generate are recognized by their text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any, TypeGuard

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.grammar.schema_analysis import Schema

_MAX_EXACT = 1 << 53  # up to here all integers are floating-point numbers
_MAX_BOUND = (1 << 63) - 1024  # the last floating-point number of 63 bits
_MAX_DECIMAL_BOUND = 9_223_372_036_854_770_000  # the last one of 15 digits
_OPEN_ENDED = 10**18  # from here on the library needs both bounds
_DIGITS = 15  # decimals of this many digits survive a round trip through floating point

_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")


def fit_bounds(schema: Schema) -> None:
    """Replace the bounds in ``schema`` with ones that the library enforces.

    :raises BadRequest: there are none.
    """
    types = schema.get("type")
    listed = types if isinstance(types, list) else [types]
    is_integer = "integer" in listed and "number" not in listed
    farthest = _MAX_BOUND if is_integer else _MAX_DECIMAL_BOUND
    found: list[list[Any]] = []
    # upper bounds are handled as lower bounds of the negated number
    for (plain, exclusive), sign in ((_LOWER, 1), (_UPPER, -1)):
        _convert_draft4(schema, plain, exclusive)
        bounds = {
            key: sign * schema[key] for key in (plain, exclusive) if _is_number(schema.get(key))
        }
        if is_integer and bounds:
            inclusive = [math.ceil(bounds[plain])] if plain in bounds else []
            if exclusive in bounds:
                inclusive.append(math.floor(bounds[exclusive]) + 1)
                del schema[exclusive]
            bounds = {plain: max(inclusive)}
        for key, bound in bounds.items():
            if bound > farthest:
                raise BadRequest(f'format: "{key}" cannot be enforced for such a number')
            bounds[key] = _round_up(max(bound, -farthest), is_integer=is_integer)
            schema[key] = sign * bounds[key]
        found.append([*bounds.values()])
    lower, upper = found
    if lower and not upper and max(lower) >= _OPEN_ENDED:
        schema["maximum"] = farthest
    if upper and not lower and max(upper) >= _OPEN_ENDED:
        schema["minimum"] = -farthest


def _convert_draft4(schema: Schema, plain: str, exclusive: str) -> None:
    """Convert draft 4 (and OpenAPI), where ``exclusive`` is a flag on the ``plain`` bound."""
    if schema.get(exclusive) is True and plain in schema:
        schema[exclusive] = schema.pop(plain)
    elif isinstance(schema.get(exclusive), bool):
        del schema[exclusive]


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _round_up(value: float, *, is_integer: bool) -> Any:
    """The next value that is exact as a floating-point number and, for decimals, has 15 digits."""
    if abs(value) <= _MAX_EXACT:
        return value
    if is_integer:
        near = float(value)
        return int(near if near >= value else math.nextafter(near, math.inf))
    context = Context(_DIGITS, ROUND_CEILING)
    decimal = context.create_decimal(Decimal(value))
    return int(decimal if float(decimal) >= value else context.next_plus(decimal))


def is_exact(value: object) -> bool:
    """Whether the library can write ``value``, if it is a number, to the last digit."""
    if isinstance(value, int) and abs(value) > _MAX_EXACT:
        return abs(value) <= _MAX_BOUND and int(float(value)) == value
    return True


AHEAD_LIMIT = 8
"""Look-aheads split off one pattern; each takes a pass over it."""

_NOT_AHEAD = {
    r"\.": r"^(?:[^.]|$)",
    r".*\.\.": r"^\.?(?:[^.]+\.?)*$",
    r"\s*$": r"\S",
    "$": r"[\s\S]",
    "^[-+.]*$": "[^-+.]",
}
"""Negative look-ahead → pattern of the strings that pass it, or (with line breaks) fewer."""

_ELEMENT = re.compile(r"\\.|\[\^?(?:\\.|[^\]\\])+(?P<closed>\])?|[.\[]", re.DOTALL)
"""An escape, a class, a dot, or a bracket that begins no class."""

_ATOMS = re.compile(
    r"\\[pP]\{[^}\\]*+\}|\\u\{[^}\\]*+\}|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\?.", re.DOTALL
)
_SETS = re.compile(r"\\[dDwWsSpP]")

_REPEATED = re.compile(r"\^(?P<one>\[\^?(?:\\.|[^\]\\])+\]|\\[dws]|\.)(?P<often>[+*])\$")
"""Any number of characters of one kind."""


def _duration_pattern(seconds: str) -> str:
    date = r"(?:\d+Y(?:\d+M)?(?:\d+D)?|\d+M(?:\d+D)?|\d+D)"
    time = rf"T(?:\d+H(?:\d+M)?(?:{seconds})?|\d+M(?:{seconds})?|{seconds})"
    return rf"^P(?:\d+W|{date}(?:{time})?|{time})$"


_KNOWN = {
    # Zod's durations
    r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?"
    r"(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$": _duration_pattern(r"\d+(?:[.,]\d+)?S")
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
"""Pydantic's decimals: digits before the point, after it, and in all (counting the point)."""

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
    "duration": _duration_pattern(r"\d+S"),
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
"""Patterns equivalent to formats, or matching their usual forms."""

_CALENDAR = {
    "date": f"^{_DATE}",
    "date-time": rf"^{_DATE}[tT]\d\d:\d\d:[0-5]",
    "time": r"^\d\d:\d\d:[0-5]",
}
"""Added to the library's formats, which allow 29 February and leap seconds anywhere."""


def translate_patterns(schema: Schema) -> None:
    """Translate the patterns of ``schema`` for the library, as far as possible.

    Formats of dates and times get a pattern in addition.
    """
    if "patternProperties" in schema:
        named = schema["patternProperties"]
        translated = {_translate(pattern): value for pattern, value in named.items()}
        # keep the originals if two would become one
        schema["patternProperties"] = translated if len(translated) == len(named) else named
    pattern, all_of = schema.get("pattern", ""), schema.get("allOf", [])
    if not isinstance(pattern, str) or not isinstance(all_of, list):
        return
    patterns = split_look_aheads(pattern) if pattern else []
    if schema.get("format") in _CALENDAR:
        patterns.append(_CALENDAR[schema["format"]])
    if patterns:
        schema["pattern"] = patterns[0]
    if patterns[1:]:
        schema["allOf"] = [*all_of, *({"pattern": each} for each in patterns[1:])]


def split_look_aheads(pattern: str) -> list[str]:
    """Translated patterns that together mean ``pattern``; unsupported look-around stays in."""
    found = [_KNOWN.get(pattern) or _decimal_pattern(pattern) or pattern]
    for _ in range(AHEAD_LIMIT):
        split = _split_look_ahead(found[0])
        if split is None:
            break
        found = [split[0], *found[1:], split[1]]
    return [_translate(each) for each in found]


def _decimal_pattern(pattern: str) -> str | None:
    """The decimals that Pydantic means; its own pattern admits more."""
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
    """``pattern`` limited to lengths; None unless it repeats one kind of character."""
    found = _REPEATED.fullmatch(pattern)
    if found is None:
        return None
    least = max(least, 1) if found["often"] == "+" else least
    return f"^{found['one']}{{{least},{'' if most is None else most}}}$"


def _split_look_ahead(pattern: str) -> tuple[str, str] | None:
    """The pattern without its leading look-ahead, and the look-ahead as a pattern."""
    if not pattern.startswith(("^(?=", "^(?!")) or _has_empty_class(pattern):
        return None
    structure = list(_find_parentheses(pattern))
    end = next((at for at, depth, _ in structure if depth == 0 and at > 1), None)
    if end is None or pattern[end + 1 : end + 2] in {"*", "+", "?", "{"}:
        return None
    if any(depth == 0 and character == "|" for _, depth, character in structure):
        return None  # the look-ahead belongs to the first branch only
    inner = pattern[len("^(?=") : end]
    condition = f"^(?:{inner})" if pattern[3] == "=" else _NOT_AHEAD.get(inner)
    return None if condition is None else (f"^{pattern[end + 1 :]}", condition)


def _find_parentheses(pattern: str) -> Iterator[tuple[int, int, str]]:
    """Positions of parentheses and bars outside classes, with the depth after each."""
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
    """An ECMAScript pattern as a Rust one."""
    if _has_empty_class(pattern):  # written for some other dialect
        return pattern
    return _ELEMENT.sub(_translate_element, pattern)


def _has_empty_class(pattern: str) -> bool:
    return any(found[0] == "[" for found in _ELEMENT.finditer(pattern))


def _translate_element(found: re.Match[str]) -> str:
    if found["closed"]:
        return _translate_class(found[0])
    return r"[^\n\r\u2028\u2029]" if found[0] == "." else found[0]


def _translate_class(text: str) -> str:
    """A character class: in Rust, brackets nest in it, and there are two-character operators."""
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
