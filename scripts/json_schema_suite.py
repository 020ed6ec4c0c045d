"""How much of JSON Schema can be enforced, by the schema language's own test suite.

::

    python scripts/json_schema_suite.py PATH

``PATH`` is a folder of the JSON-Schema-Test-Suite, ``tests/draft2020-12``; one comes with the
source package of ``jsonschema``. Of each schema of the required cases one of three things is said:

- *enforced*: no instance that the schema forbids can be generated
- *refused*: a request with it is answered with an error that says why
- *wrong*: an instance that the schema forbids can be generated

``narrower`` counts the enforced schemas of which an allowed instance, written in the usual way,
cannot be generated (objects are closed, for one). Wrong schemas are listed, and the exit status is
1 if there are any.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.grammar.lark import HEAD, json_rule
from ollama_async.workers.child.grammar.llguidance import GrammarTokenizer

_END = 256
_ORDERS_LIMIT = 24  # ways to order the properties of an object that are tried


def _piece(token: int) -> bytes:
    """A token for each byte, and an end."""
    return b"" if token == _END else bytes([token])


class Verdict(msgspec.Struct):
    """Of one schema. ``refusal`` is the error; ``wrong`` are forbidden instances that come out."""

    refusal: str = ""
    wrong: list[str] = []
    is_narrower: bool = False


class Judge:
    def __init__(self) -> None:
        self._tokenizer = GrammarTokenizer(_END + 1, _piece, _END.__eq__)

    def judge(self, group: dict[str, Any]) -> Verdict:
        """``group`` is a schema with its instances, as in the suite."""
        try:
            text = f"{HEAD}start: {json_rule(group['schema'])}\n"
            self._tokenizer.compile(text)
        except BadRequest as error:
            return Verdict(refusal=error.message)
        verdict = Verdict()
        for test in group["tests"]:
            can_come = any(self._comes(text, way) for way in _spellings(test["data"]))
            if can_come and not test["valid"]:
                verdict.wrong.append(test["description"])
            if test["valid"] and not can_come:
                verdict.is_narrower = True
        return verdict

    def _comes(self, text: str, answer: str) -> bool:
        grammar = self._tokenizer.compile(text)
        for token in answer.encode("utf-8", "surrogatepass"):
            if not grammar.allows(token):
                return False
            grammar.accept(token)
        return grammar.is_over or grammar.allows(_END)


def _spellings(value: object) -> Iterator[str]:
    """``value`` as JSON, the properties of the outermost object in several orders."""
    orders: Iterator[Any] = iter([value])
    if isinstance(value, dict):
        orders = map(dict, itertools.permutations(value.items()))
    for each in itertools.islice(orders, _ORDERS_LIMIT):
        yield json.dumps(each, ensure_ascii=False)


def main(folder: Path) -> int:
    judge, totals, wrong = Judge(), [0, 0, 0, 0], []
    print("| file | schemas | enforced | of these narrower | refused | wrong |")
    print("| --- | --- | --- | --- | --- | --- |")
    for path in sorted(folder.glob("*.json")):
        groups = json.loads(path.read_text())
        verdicts = [judge.judge(group) for group in groups]
        row = [
            sum(not (each.refusal or each.wrong) for each in verdicts),
            sum(each.is_narrower and not each.wrong for each in verdicts),
            sum(bool(each.refusal) for each in verdicts),
            sum(bool(each.wrong) for each in verdicts),
        ]
        totals = [total + count for total, count in zip(totals, row, strict=True)]
        print(f"| {path.stem} | {len(groups)} | {' | '.join(map(str, row))} |")
        for group, verdict in zip(groups, verdicts, strict=True):
            wrong += [f"{path.stem}: {group['description']}: {test}" for test in verdict.wrong]
    print(f"| all | {totals[0] + totals[2] + totals[3]} | {' | '.join(map(str, totals))} |")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} PATH")
    sys.exit(main(Path(sys.argv[1])))
