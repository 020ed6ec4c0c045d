"""Constraints on answers: a request's format, forced tool call or offered tools, as grammars.

A ``format`` or a forced tool call constrains the whole answer: thoughts, if the model marks them
and the client does not forbid them, then the prescribed form. Thoughts are part of the grammar, so
nothing has to switch it on. If tools are only offered, the answer is free until it begins a call.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from ollama_async.core.bounded_cache import BoundedCache
from ollama_async.core.conversation import Inference, Prompt
from ollama_async.core.errors import BadRequest
from ollama_async.prompts.output_format import (
    UNDECIDED_LIMIT,
    CallSyntax,
    Delimiters,
    ForcedCall,
    Parser,
)
from ollama_async.workers.child.engines.engine import Constraint, Engine
from ollama_async.workers.child.grammar.json_schema import check_size
from ollama_async.workers.child.grammar.lark import (
    ANYTHING,
    HEAD,
    MAX_CALLS,
    SpecialTokens,
    Strictness,
    json_rule,
    literal,
    split_special,
    text_pattern,
)
from ollama_async.workers.child.grammar.tool_calls import (
    MAX_TOOLS,
    call_grammar,
    call_rules,
    tool_names,
)

if TYPE_CHECKING:  # the library takes 35 ms to import
    from ollama_async.workers.child.grammar.llguidance import GrammarMatcher, GrammarTokenizer


class CallGuard:
    """A :class:`~ollama_async.workers.child.engines.engine.Constraint` that restricts tool calls,
    once a model has begun one, to the offered tools and their schemas. Step thread only.

    ``grammars``: for each syntax, what may follow the mark that opens a call; owned by this object.
    ``names`` are those of the tools.

    Text and thoughts are free: before a call begins, no grammar is consulted. The parser, which
    reads the same text, reports when it begins. So a token that opens a call and continues into it
    has been sampled already. If it cannot become a valid call, that call stays unguarded.

    A token that is not allowed is replaced by its longest allowed prefix. Otherwise a model whose
    token ends both a string and an object that lacks a property would continue the string instead.
    """

    def __init__(
        self,
        grammars: Mapping[CallSyntax, GrammarMatcher],
        names: tuple[str, ...],
        tokenizer: GrammarTokenizer,
    ) -> None:
        self._grammars = grammars
        self._names = names
        self._tokenizer = tokenizer
        self._refused = -1
        self._active: GrammarMatcher | None = None
        self._decided = 0  # number of the last call known to be guarded or not
        self.is_over = False
        self.failure = ""

    @property
    def is_free(self) -> bool:
        """Whether any token is allowed now."""
        return self._active is None

    @property
    def mask_s(self) -> float:
        return 0.0 if self._active is None else self._active.mask_s

    def update(self, answer: Parser) -> None:
        """Check whether the answer has begun a call, after more of its text."""
        number = answer.call_number
        if number in (0, self._decided) or self._active is not None:
            return
        call = answer.open_call
        if call is None:
            return
        start = call.syntax.find_start(call.text, self._names)
        if start is None:
            if len(call.text) > UNDECIDED_LIMIT:
                self._decided = number
            return
        self._decided = number
        grammar = self._grammars.get(call.syntax)
        if grammar is not None:
            written = call.text[start:].encode(errors="replace")
            begun = grammar.restart(self._tokenizer.tokenize(written))
            self._active = grammar if begun and not grammar.is_over else None

    def allows(self, token: int) -> bool:
        if self._active is None or self._active.allows(token):
            return True
        self._refused = token
        return False

    def allowed(self) -> NDArray[np.intp]:
        grammar = self._active
        if grammar is None:
            return np.empty(0, np.intp)
        prefixes = self._tokenizer.prefixes(self._refused) if self._refused >= 0 else ()
        first = next(filter(grammar.allows, prefixes), None)
        return grammar.allowed() if first is None else np.array([first], np.intp)

    def forced(self, most: int) -> list[int]:
        return [] if self._active is None else self._active.forced(most)

    def accept(self, token: int) -> None:
        grammar = self._active
        if grammar is None:
            return
        self._refused = -1
        grammar.accept(token)
        if grammar.is_over:
            self._active = None
            if grammar.failure:  # the rest of the call is unguarded
                print(f"a tool call is not guarded: {grammar.failure}", file=sys.stderr)  # noqa: T201  # stderr is the log


TOOLS_SIZE_LIMIT = 1 << 18
"""Bytes of all tool descriptions; the largest sets in use have some 100,000."""

CACHE_ENTRIES = 64
"""Grammars of formats, and of tools: agents send the same ones with every request."""

CACHE_BYTES = 1 << 20
"""Size of the sources of cached grammars of each kind; compiled ones are up to 60 times larger."""

_BLANK = r"""
blank: /[ \t\r\n]{1,8}/
"""
_RULES = rf"""
{ANYTHING}gap: /[ \n]{{1,2}}/
{_BLANK}"""

_pack = msgspec.msgpack.Encoder().encode


K = TypeVar("K")
_Cache = BoundedCache[K, "GrammarMatcher | BadRequest"]


class ConstraintFactory:
    """Makes the constraints of one model's requests, and caches compiled grammars.

    One thread builds; any number look up. ``before_build`` is called before something is built, and
    raises where that is not allowed.

    The first call loads the library and copies the vocabulary: 35 ms, and 8 µs and 300 bytes for
    each token. Answers go on meanwhile.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._formats: _Cache[bytes] = BoundedCache(CACHE_ENTRIES, CACHE_BYTES)
        self._calls: _Cache[tuple[CallSyntax, bytes]] = BoundedCache(CACHE_ENTRIES, CACHE_BYTES)
        self._copying = threading.Lock()

    def constrain(
        self,
        inference: Inference,
        rendered: str,
        delimiters: Delimiters,
        special: SpecialTokens,
        before_build: Callable[[], None] = lambda: None,
    ) -> Constraint | None:
        """The constraint of an answer to ``inference``; None if the client prescribes no form.

        ``rendered`` is the text of the prompt.

        :raises BadRequest: the form cannot be enforced.
        """
        if not _is_call_forced(inference) and inference.format is None:
            return None
        check_size(inference.format)
        key = _key(inference, rendered, delimiters, special)
        found = self._formats.get(key)
        if found is None:
            before_build()
            size = 0
            try:
                found, size = self._build_answer(inference, rendered, delimiters, special)
            except BadRequest as error:
                found = error
            self._formats.put(key, found, size)
        if isinstance(found, BadRequest):
            raise found.with_traceback(None)
        return self._copy(found)

    def guard(
        self,
        tools: Sequence[dict[str, Any]],
        delimiters: Delimiters,
        special: SpecialTokens,
        before_build: Callable[[], None] = lambda: None,
    ) -> CallGuard | None:
        """Enforces the schemas of ``tools`` in an answer's calls; None if nothing can."""
        names = tool_names(tools)
        if not names or not delimiters.syntaxes:
            return None
        packed = _pack(tools)
        if len(packed) > TOOLS_SIZE_LIMIT:
            _log(f"their descriptions have more than {TOOLS_SIZE_LIMIT} bytes")
            return None
        digest = hashlib.sha256(packed + _pack(dict(special))).digest()
        grammars = {}
        for syntax in delimiters.syntaxes:
            key = (syntax, digest)
            found = self._calls.get(key)
            if found is None:
                before_build()
                found = self._build_call(syntax, tools, special)
                self._calls.put(key, found, len(packed))
            if not isinstance(found, BadRequest):
                grammars[syntax] = self._copy(found)
        return CallGuard(grammars, names, self._tokenizer) if grammars else None

    def _copy(self, matcher: GrammarMatcher) -> GrammarMatcher:
        """A cached matcher is never advanced itself, and is for one thread at a time."""
        with self._copying:
            return matcher.copy()

    def _build_answer(
        self,
        inference: Inference,
        rendered: str,
        delimiters: Delimiters,
        special: SpecialTokens,
    ) -> tuple[GrammarMatcher, int]:
        """The strictest grammar of an answer that compiles, and the size of its source.

        :raises BadRequest: there is none.
        """
        reason = BadRequest("format: it cannot be enforced")
        for strictness in get_args(Strictness):
            try:
                text = _answer_grammar(inference, rendered, delimiters, special, strictness)
                return self._tokenizer.compile(text), len(text)
            except BadRequest as error:
                reason = error
            if not _is_in_syntax(inference, delimiters):
                break
        raise reason

    def _build_call(
        self, syntax: CallSyntax, tools: Sequence[dict[str, Any]], special: SpecialTokens
    ) -> GrammarMatcher | BadRequest:
        """The strictest grammar of one call that compiles, or why there is none."""
        reason = BadRequest(f"there are more than {MAX_TOOLS}")
        if len(tools) <= MAX_TOOLS:
            for strictness in get_args(Strictness):
                try:
                    text = call_grammar(syntax, tools, special, strictness=strictness)
                    return self._tokenizer.compile(text)
                except BadRequest as error:
                    reason = error
        _log(reason.message)
        return reason

    @cached_property
    def _tokenizer(self) -> GrammarTokenizer:
        # imported only here: most workers never need the library
        from ollama_async.workers.child.grammar import llguidance  # noqa: PLC0415

        engine = self._engine
        return llguidance.GrammarTokenizer(engine.facts.vocab_size, engine.piece, engine.is_end)


def _key(
    inference: Inference, rendered: str, delimiters: Delimiters, special: SpecialTokens
) -> bytes:
    """Covers everything that the grammar depends on."""
    prompt = inference.prompt
    tools = prompt.tools if _is_call_forced(inference) else []
    begin = delimiters.thoughts[0] if delimiters.thoughts else ""
    thoughts = delimiters.thoughts, rendered.rstrip().endswith(begin), delimiters.begins_thinking
    choice = prompt.tool_choice, prompt.parallel_tool_calls
    asked = inference.format, tools, choice, prompt.think
    shown = thoughts, delimiters.calls, delimiters.opening
    text = json.dumps((asked, shown)).encode()  # schemas may have numbers that msgpack cannot take
    return hashlib.sha256(text + _pack((delimiters.forced, dict(special)))).digest()


def _log(reason: str) -> None:
    print(f"calls of these tools are not guarded: {reason}", file=sys.stderr)  # noqa: T201  # stderr is the log


# The grammar of an answer in a prescribed form


def _answer_grammar(
    inference: Inference,
    rendered: str,
    delimiters: Delimiters,
    special: SpecialTokens,
    strictness: Strictness,
) -> str:
    """The grammar of an answer with a format or a forced tool call; the call takes precedence.
    ``strictness`` is that of calls in a syntax of their own.

    :raises BadRequest: the form cannot be enforced with this model.
    """
    prompt = inference.prompt
    if not _is_call_forced(inference):
        body = f"answer: {json_rule(inference.format)}\n{_RULES}"
    elif delimiters.calls is not None:
        most = MAX_CALLS if prompt.tool_choice == "required" and prompt.parallel_tool_calls else 1
        body = _forced_calls(_chosen_tools(prompt), *delimiters.calls, special=special, most=most)
        body += _RULES
    else:
        if delimiters.forced is None:
            raise BadRequest("tool_choice: this model's tool calls cannot be forced")
        body = _forced_in_syntax(prompt, delimiters.forced, special, strictness)
        delimiters = _before_call(delimiters, delimiters.forced)
    return HEAD + _start(prompt.think, rendered, delimiters, special) + body


def _is_call_forced(inference: Inference) -> bool:
    return inference.prompt.tool_choice not in {"auto", "none"}


def _is_in_syntax(inference: Inference, delimiters: Delimiters) -> bool:
    """Whether a call is forced that is not plain JSON."""
    return _is_call_forced(inference) and delimiters.calls is None


def _before_call(delimiters: Delimiters, forced: ForcedCall) -> Delimiters:
    """The delimiters of thoughts that a forced call follows."""
    if delimiters.thoughts is None or not forced.thoughts_end:
        return delimiters
    thoughts = delimiters.thoughts[0], forced.thoughts_end
    return msgspec.structs.replace(delimiters, thoughts=thoughts, opening="")


def _forced_in_syntax(
    prompt: Prompt, forced: ForcedCall, special: SpecialTokens, strictness: Strictness
) -> str:
    """The rule ``answer``: a call of a chosen tool as the model's family writes it, or several if
    the syntax has a form for that and they may come.

    :raises BadRequest: the chosen tool does not exist, or the grammar would be too large.
    """
    chosen = _chosen_tools(prompt)
    syntax = msgspec.structs.replace(forced.syntax, texts=())
    if prompt.tool_choice != "required" or not prompt.parallel_tool_calls:
        syntax = msgspec.structs.replace(syntax, repeated=False, listed=())
    rules = call_rules(syntax, chosen, special, strictness=strictness, root="called")
    opening = text_pattern(forced.opening, special) if forced.opening else ""
    return f"answer: {opening} called\n{rules}{_BLANK}"


def _chosen_tools(prompt: Prompt) -> list[dict[str, Any]]:
    """Those of which one must be called.

    :raises BadRequest: there are none, or their grammar would be too large.
    """
    choice, tools = prompt.tool_choice, prompt.tools
    names = [(tool, tool_names([tool])) for tool in tools]
    chosen = [tool for tool, name in names if name and choice.strip() in {"required", *name}]
    if not chosen:
        raise BadRequest(f"tool_choice: there is no tool {choice!r}" if tools else "no tools")
    if len(chosen) > MAX_TOOLS or len(_pack(chosen)) > TOOLS_SIZE_LIMIT:
        limits = f"{MAX_TOOLS} tools, or {TOOLS_SIZE_LIMIT} bytes of their descriptions"
        raise BadRequest(f"tool_choice: more than {limits}")
    return chosen


def _forced_calls(
    tools: Sequence[dict[str, Any]],
    begin: str,
    end: str,
    *,
    special: SpecialTokens,
    most: int,
) -> str:
    """The rule ``answer``: one to ``most`` JSON objects of ``name`` and ``arguments``, each between
    ``begin`` and ``end``. After calls that may be several, white space need not lead to another.

    :raises BadRequest: the schema of a tool cannot be enforced.
    """
    rules: list[str] = []
    for tool in tools:
        function = tool["function"]
        name = function["name"]
        head = literal(f'{json.dumps(name, ensure_ascii=False)}, "arguments":')
        try:
            arguments = json_rule(function.get("parameters") or {"type": "object"})
        except BadRequest as error:
            raise BadRequest(f"tool {name!r}: {error.message}") from None
        rules.append(f"call_{len(rules)}: {head} gap? {arguments}\n")
    either = " | ".join(f"call_{number}" for number in range(len(rules)))
    key = literal('"name":')
    opened = f'{text_pattern(begin, special)} gap? "{{" gap? {key} gap? ({either})'
    rules.append(f'call: {opened} gap? "}}" gap? {text_pattern(end, special)}\n')
    more = f" (gap? call){{0,{most - 1}}} gap?" if most > 1 else ""
    return f"answer: call{more}\n" + "".join(rules)


def _start(
    think: bool | str | None, rendered: str, delimiters: Delimiters, special: SpecialTokens
) -> str:
    """The rule ``start``: thoughts, unless forbidden, or the model's opening, then the answer."""
    opening = text_pattern(delimiters.opening, special) if delimiters.opening else ""
    if delimiters.thoughts is None:
        return f"start: {opening} answer\n"
    begin, end = delimiters.thoughts
    is_thinking = delimiters.begins_thinking or rendered.rstrip().endswith(begin)
    if think is False:
        # some templates begin a thought for any client: it ends at once
        before = f"{text_pattern(end, special)} blank?" if is_thinking else opening
        return f"start: {before} answer\n"
    first, *rest = split_special(end, special)
    if first.startswith("<"):  # a control token: text cannot be mistaken for it
        rules = f"thoughts: ANYTHING {first} {' '.join(rest)}\n"
    else:
        rules = f"until[lazy]: ANYTHING {first}\nthoughts: until {' '.join(rest)}\n"
    if is_thinking:
        return rules + "start: thoughts blank? answer\n"
    thought = f"blank? {text_pattern(begin, special)} thoughts"
    before = f"({thought} | {opening})" if opening else f"({thought})?"
    return rules + f"start: {before} blank? answer\n"
