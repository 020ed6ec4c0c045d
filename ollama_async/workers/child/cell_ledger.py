"""The cell ledger: how many cells of the KV cache are in use, where sequences share some of them.

It mirrors what an engine does with a pool: an evaluated token takes a cell, a copy shares the cells
of its source, and a cell is free when no sequence holds it any more. Sequences only ever share
their beginnings, so each is a list of runs, and a run belongs to all sequences that hold it.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet


class _Run:
    """``size`` cells that follow one another in each of the sequences in ``holders``."""

    __slots__ = ("holders", "size")

    def __init__(self, size: int, holders: set[int]) -> None:
        self.size = size
        self.holders = holders


class CellLedger:
    """Of ``capacity`` cells; ``used`` by any of the sequences 0 to ``sequences`` - 1. Without
    ``shares`` each sequence has cells of its own, and a copy takes as many as its source.
    """

    def __init__(self, sequences: int, capacity: int, *, shares: bool) -> None:
        self.capacity = capacity
        self.used = 0
        self._shares = shares
        self._runs: list[list[_Run]] = [[] for _ in range(sequences)]

    @property
    def free(self) -> int:
        return self.capacity - self.used

    def length(self, sequence: int) -> int:
        """Tokens of the sequence."""
        return sum(run.size for run in self._runs[sequence])

    def shared(self, sequence: int) -> int:
        """Its cells that another sequence holds, too."""
        return sum(run.size for run in self._runs[sequence] if len(run.holders) > 1)

    def held_by(self, sequences: AbstractSet[int]) -> int:
        """Cells that at least one of these holds."""
        counted: set[int] = set()
        total = 0
        for sequence in sequences:
            for run in self._runs[sequence]:
                if id(run) not in counted:
                    counted.add(id(run))
                    total += run.size
        return total

    def held_of(self, sequence: int, length: int, sequences: AbstractSet[int]) -> int:
        """Cells of the first ``length`` tokens of a sequence that at least one of ``sequences``
        holds.
        """
        total = 0
        for run in self._runs[sequence]:
            if length <= 0:
                break
            if not sequences.isdisjoint(run.holders):
                total += min(run.size, length)
            length -= run.size
        return total

    def append(self, sequence: int, count: int) -> None:
        """The sequence gets so many more tokens."""
        runs = self._runs[sequence]
        if runs and len((last := runs[-1]).holders) == 1:
            last.size += count
        elif count:
            runs.append(_Run(count, {sequence}))
        self.used += count

    def trim(self, sequence: int, length: int) -> None:
        """Only its first ``length`` tokens stay."""
        runs = self._runs[sequence]
        kept = self._split(sequence, length)
        for run in runs[kept:]:
            run.holders.remove(sequence)
            if not run.holders:
                self.used -= run.size
        del runs[kept:]

    def copy(self, source: int, target: int, length: int) -> None:
        """``target`` holds the first ``length`` tokens of ``source`` now, and nothing else."""
        self.trim(target, 0)
        if not self._shares:
            self.append(target, min(length, self.length(source)))
            return
        shared = self._runs[source][: self._split(source, length)]
        for run in shared:
            run.holders.add(target)
        self._runs[target] = shared

    def share(self, source: int, target: int, length: int) -> None:
        """The first ``length`` tokens of ``target``, which both have, are in ``source``'s cells."""
        rest = self.length(target) - length
        self.copy(source, target, length)
        self.append(target, rest)

    def unshare(self, sequence: int) -> None:
        """It has cells of its own for all its tokens."""
        length = self.length(sequence)
        self.trim(sequence, 0)
        self.append(sequence, length)

    def _split(self, sequence: int, length: int) -> int:
        """How many runs hold its first ``length`` tokens, after one was split if need be."""
        runs = self._runs[sequence]
        for index, run in enumerate(runs):
            if length <= 0:
                return index
            if length < run.size:
                rest = _Run(run.size - length, set(run.holders))
                run.size = length
                for holder in run.holders:
                    its_runs = self._runs[holder]
                    its_runs.insert(its_runs.index(run) + 1, rest)
                return index + 1
            length -= run.size
        return len(runs)
