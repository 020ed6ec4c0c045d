"""A Jinja sandbox for untrusted templates, in which the memory of each expression is bounded.

``jinja2``'s immutable sandbox keeps a template from the interpreter. It does not keep it from
filling memory (``"x" * 10**10``, ``s ~ s`` in a loop), nor from one endless operation inside the
interpreter, which no deadline could interrupt. So here

- text, lists and numbers have limits (:mod:`.render_limits`), whatever makes them;
- values are weighed before they become text: a list that holds another twice, that one another
  twice, and so on forty times, is small, but its ``repr`` is endless;
- methods, filters and globals are those that chat templates use, with guarded arguments.

Loops and recursion run as bytecode: the caller bounds their time and memory by interrupting it.
Comparing two such nested lists can still be one endless operation; for that, the caller needs a
last resort.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import ChainableUndefined, Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from ollama_async.prompts.jinja_builtins import ALL, call_method, fill_in, is_change, show
from ollama_async.prompts.render_limits import allow_items, allow_number, allow_text, join_pieces

_CONCATENATE = "~"  # not a name that a template could spell
_SCOPE = frozenset(["_loop_vars", "_block_vars"])
"""Arguments that compiled templates add to every call in a loop or a block."""


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment with the settings of Hugging Face's: blocks swallow the white space around
    them, ``break`` and ``continue`` exist, ``{% generation %}`` is transparent.
    """

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", Generation],
            optimized=False,  # the optimizer would run expressions while compiling
            finalize=show,
            undefined=Missing,
            cache_size=0,
        )
        self.filters = {**ALL, _CONCATENATE: lambda values: join_pieces(map(show, values))}
        self.globals = {
            "range": safe_range,
            "dict": dict,
            "namespace": Namespace,
            "cycler": Cycler,
            "joiner": Joiner,
        }

    @staticmethod
    def concat(texts: Iterable[str]) -> str:
        """How macros, blocks and ``set`` blocks join their output."""
        return join_pieces(texts)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            return fill_in(left, right)
        if operator in _CHECKS:  # the remainder of numbers cannot grow
            _CHECKS[operator](left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # jinja2's way to leave every keyword to the template
        if isinstance(__obj, BuiltinMethodType) and __obj.__self__ is not None:
            named = {name: value for name, value in kwargs.items() if name not in _SCOPE}
            return call_method(__obj.__self__, __obj.__name__, args, named)
        if isinstance(__obj, MethodType) and isinstance(__obj.__self__, str):
            raise SecurityError(f"method {__obj.__name__!r} is not allowed")
        return super().call(__context, __obj, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Lists and dicts may be changed as well: they are made for this one rendering."""
        return is_change(obj, attr) or super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """:raises SecurityError: always; forbidden attributes must not merely count as missing."""
        raise SecurityError(f"{attribute!r} of {type(obj).__name__} is not allowed")

    def wrap_str_format(self, value: Any) -> None:
        """Leaves ``str.format`` as it is: :meth:`call` replaces it by its name."""

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Rewriting().visit(super()._parse(source, name, filename))
        return tree


class Missing(ChainableUndefined):
    """A missing value is empty text, however deep it is looked up. It cannot be called."""

    __slots__ = ()

    def __add__(self, other: Any) -> Any:
        return other

    def __radd__(self, other: Any) -> Any:
        return other


class Generation(Extension):
    """``{% generation %}…{% endgeneration %}`` surrounds trained text; here it has no effect."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Rewriting(NodeTransformer):
    """``a ~ b`` becomes a filter with limits; ``autoescape`` is refused, because it uses
    ``Markup``.
    """

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802  # jinja2's naming
        self.generic_visit(node)
        operands = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(operands, _CONCATENATE, [], [], None, None, lineno=node.lineno)

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:  # noqa: N802
        raise TemplateSyntaxError("autoescape has no meaning in a chat template", node.lineno)


def _check_sum(left: Any, right: Any) -> None:
    if isinstance(left, str) and isinstance(right, str):
        allow_text(len(left) + len(right))
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        allow_items(len(left) + len(right))


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        allow_number(left.bit_length() + right.bit_length())
        return
    times, repeated = (left, right) if isinstance(left, int) else (right, left)
    if isinstance(repeated, str):
        allow_text(len(repeated) * times)
    elif isinstance(repeated, list | tuple):
        allow_items(len(repeated) * times)


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        allow_number(left.bit_length() * right)


_CHECKS = {"+": _check_sum, "*": _check_product, "**": _check_power}
