"""The ledger counts as many cells as there are where each is counted by itself."""

from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.child.cell_ledger import CellLedger

SEQUENCES = 4
sequence = st.integers(0, SEQUENCES - 1)
count = st.integers(0, 9)
history = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["append", "trim"]), sequence, count),
        st.tuples(st.sampled_from(["copy", "share"]), sequence, sequence, count),
        st.tuples(st.just("unshare"), sequence),
    ),
    max_size=40,
)


class NaiveCells:
    """A cell is an object; each sequence lists its own."""

    def __init__(self, *, shares):
        self.shares = shares
        self.of = [[] for _ in range(SEQUENCES)]

    def append(self, number, size):
        self.of[number] += [object() for _ in range(size)]

    def trim(self, number, length):
        del self.of[number][length:]

    def copy(self, source, target, length):
        self.of[target] = self.of[source][:length]
        if not self.shares:
            self.unshare(target)

    def share(self, source, target, length):
        rest = len(self.of[target]) - length
        self.copy(source, target, length)
        self.append(target, rest)

    def unshare(self, number):
        self.of[number] = [object() for _ in self.of[number]]


@given(history, st.booleans(), st.sets(sequence))
def test_cells_are_counted_whatever_is_shared(changes, shares, some):
    ledger, naive = CellLedger(SEQUENCES, 1000, shares=shares), NaiveCells(shares=shares)
    for name, *arguments in changes:
        if name in {"copy", "share"}:
            source, target, length = arguments
            if source == target:
                continue
            lengths = [len(naive.of[source])] + [len(naive.of[target])] * (name == "share")
            arguments[2] = min([length, *lengths])
        getattr(ledger, name)(*arguments)
        getattr(naive, name)(*arguments)

        assert ledger.used == len({id(cell) for cells in naive.of for cell in cells})
        assert ledger.free == 1000 - ledger.used
        held = {id(cell) for number in some for cell in naive.of[number]}
        assert ledger.held_by(some) == len(held)
        for number, cells in enumerate(naive.of):
            others = [other for at, other in enumerate(naive.of) if at != number]
            elsewhere = {id(cell) for other in others for cell in other}
            assert ledger.length(number) == len(cells)
            assert ledger.shared(number) == sum(id(cell) in elsewhere for cell in cells)
            for length in (0, 3, len(cells)):
                both = sum(id(cell) in held for cell in cells[:length])
                assert ledger.held_of(number, length, some) == both
