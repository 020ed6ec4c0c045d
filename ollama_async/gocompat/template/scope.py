"""The variables of a running template."""

from __future__ import annotations

from ollama_async.gocompat.template.failures import Rejected
from ollama_async.gocompat.values import Value


class Scope:
    """The variables of one template, innermost last; finding one takes the same time in any."""

    def __init__(self, dot: Value) -> None:
        self._names = ["$"]
        self._values = [dot]
        self._places = {"$": [0]}

    def __len__(self) -> int:
        return len(self._names)

    def forget(self, size: int) -> None:
        """Only the first ``size`` variables stay."""
        while len(self._names) > size:
            self._places[self._names.pop()].pop()
            self._values.pop()

    def declare(self, name: str, value: Value) -> None:
        self._places.setdefault(name, []).append(len(self._names))
        self._names.append(name)
        self._values.append(value)

    def set(self, name: str, value: Value) -> None:
        self._values[self._place(name)] = value

    def set_last(self, number: int, value: Value) -> None:
        """Of the variable declared ``number`` from the end."""
        self._values[-number] = value

    def get(self, name: str) -> Value:
        return self._values[self._place(name)]

    def _place(self, name: str) -> int:
        places = self._places.get(name)
        if not places:
            raise Rejected(f"undefined variable: {name}")
        return places[-1]
