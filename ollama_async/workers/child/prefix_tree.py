"""The prefix tree: which token sequences begin as a prompt does, and for how long.

A radix tree: a node holds the tokens that a set of sequences have in common after those of its
parent. Finding all that share a prefix costs what it takes to compare the prompt with one of them.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from ollama_async.workers.child.prefix_query import common_prefix_length


class _Node:
    """``members``: the sequences that have all its tokens; some may end here."""

    __slots__ = ("children", "members", "parent", "tokens")

    def __init__(self, tokens: list[int], members: set[int], parent: _Node | None) -> None:
        self.tokens = tokens
        self.members = members
        self.parent = parent
        self.children: dict[int, _Node] = {}  # by their first token


class PrefixTree:
    """Token sequences by a number of the caller's choice."""

    def __init__(self) -> None:
        self._root = _Node([], set(), None)
        self._ends: dict[int, _Node] = {}  # where each sequence ends

    def matches(self, prompt: list[int]) -> list[tuple[int, AbstractSet[int]]]:
        """Lengths, longest first, and the sequences that share at least so many tokens with the
        prompt. The sets are the tree's own, and change with it.
        """
        found: list[tuple[int, AbstractSet[int]]] = []
        node, depth = self._root, 0
        while depth < len(prompt) and (child := node.children.get(prompt[depth])) is not None:
            node = child
            size = len(node.tokens)
            shared = common_prefix_length(node.tokens, prompt[depth : depth + size])
            depth += shared
            found.append((depth, node.members))
            if shared < size:
                break
        found.reverse()
        return found

    def set(self, key: int, tokens: list[int]) -> None:
        """The sequence has these tokens now."""
        self.remove(key)
        if tokens:
            self._add(self._root, key, tokens)

    def extend(self, key: int, tokens: list[int]) -> None:
        """The sequence goes on with these tokens."""
        if not tokens:
            return
        node = self._ends.get(key, self._root)
        if node is not self._root and not node.children and len(node.members) == 1:
            node.tokens += tokens
        else:
            self._add(node, key, tokens)

    def remove(self, key: int) -> None:
        """Forget the sequence, if there is one."""
        node = self._ends.pop(key, None)
        while node is not None and node.parent is not None:
            parent = node.parent
            node.members.remove(key)
            if not node.members:
                del parent.children[node.tokens[0]]
            else:
                self._merge(node)
            node = parent

    def _add(self, node: _Node, key: int, tokens: list[int]) -> None:
        """A sequence that ends at ``node`` goes on with ``tokens``, at least one."""
        at = 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                child = _Node(tokens[at:], set(), node)
                node.children[tokens[at]] = child
            size = len(child.tokens)
            shared = common_prefix_length(child.tokens, tokens[at : at + size])
            if shared < size:
                child = self._split(child, shared)
            child.members.add(key)
            node = child
            at += shared
        self._ends[key] = node

    def _split(self, node: _Node, size: int) -> _Node:
        """Make the first ``size`` tokens of a node a node of their own, and return that."""
        parent = node.parent
        assert parent is not None, "the root has no tokens"
        upper = _Node(node.tokens[:size], set(node.members), parent)
        parent.children[upper.tokens[0]] = upper
        node.tokens = node.tokens[size:]
        node.parent = upper
        upper.children[node.tokens[0]] = node
        return upper

    def _merge(self, node: _Node) -> None:
        """Join the node with its only child, if all its sequences go on there."""
        if len(node.children) != 1:
            return
        (child,) = node.children.values()
        if len(child.members) != len(node.members):
            return
        node.tokens += child.tokens
        node.children = child.children
        for grandchild in node.children.values():
            grandchild.parent = node
        for key in child.members:
            if self._ends[key] is child:
                self._ends[key] = node
