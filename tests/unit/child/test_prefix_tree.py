"""The prefix tree finds what comparing with every sequence finds."""

from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.child.prefix_query import common_prefix_length
from ollama_async.workers.child.prefix_tree import PrefixTree

KEYS = st.integers(0, 5)
tokens = st.lists(st.integers(0, 1), max_size=12)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, tokens),
        st.tuples(st.just("extend"), KEYS, tokens),
        st.tuples(st.just("remove"), KEYS, st.just([])),
    ),
    max_size=30,
)


def found(tree, prompt, keys):
    matches = tree.matches(prompt)
    assert [length for length, _ in matches] == sorted({n for n, _ in matches}, reverse=True)
    return {
        key: max((length for length, members in matches if key in members), default=0)
        for key in keys
    }


@given(changes, st.lists(tokens, min_size=1, max_size=4))
def test_every_sequence_is_found_with_what_it_shares(history, prompts):
    tree, naive = PrefixTree(), {}
    for change, key, added in history:
        if change == "set":
            tree.set(key, list(added))
            naive[key] = list(added)
        elif change == "extend":
            tree.extend(key, list(added))
            naive[key] = [*naive.get(key, []), *added]
        else:
            tree.remove(key)
            naive.pop(key, None)
        for prompt in [*prompts, *naive.values()]:
            truth = {key: common_prefix_length(held, prompt) for key, held in naive.items()}
            assert found(tree, prompt, naive) == truth


def test_a_tree_without_sequences_is_empty():
    tree = PrefixTree()
    for key in range(50):
        tree.set(key, [*range(key), 99, *range(10)])
    for key in range(50):
        tree.remove(key)

    assert tree.matches([0, 1, 2]) == []
    assert not tree._root.children


def test_sequences_that_are_gone_leave_one_node_for_the_rest():
    """Else each that ever branched off would make finding slower."""
    tree = PrefixTree()
    tree.set(0, [1] * 100)
    for key in range(1, 90):
        tree.set(key, [1] * key + [2])
        tree.remove(key)

    assert len(tree.matches([1] * 100)) == 1
