"""Which of many key ranges hold a key: a treap of intervals."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeAlias, TypeVar

Member = TypeVar("Member", bound=Hashable)

_Bound: TypeAlias = tuple[bool, bytes]
"""The end of an interval, ordered: (False, end), or (True, b"") for one without an end."""


class _Node(Generic[Member]):
    """An interval and its members.

    Invariants: smaller intervals are to the left; no child has a higher priority; ``furthest`` is
    the greatest bound in the subtree.
    """

    __slots__ = ("bound", "furthest", "left", "members", "priority", "right", "start")

    def __init__(self, start: bytes, bound: _Bound) -> None:
        self.start = start
        self.bound = bound
        # A hash that is salted per process: nobody outside can choose ranges that unbalance the
        # tree, and no answer depends on its shape.
        self.priority = hash((start, bound))
        self.members: dict[Member, None] = {}
        self.left: _Node[Member] | None = None
        self.right: _Node[Member] | None = None
        self.furthest = bound

    def update(self) -> None:
        """Restore ``furthest`` after the children changed."""
        self.furthest = self.bound
        if self.left is not None and self.left.furthest > self.furthest:
            self.furthest = self.left.furthest
        if self.right is not None and self.right.furthest > self.furthest:
            self.furthest = self.right.furthest


class IntervalTree(Generic[Member]):
    """Members filed under intervals [start, end) of keys; an end of None is behind every key."""

    def __init__(self) -> None:
        self._root: _Node[Member] | None = None

    def add(self, start: bytes, end: bytes | None, member: Member) -> None:
        """File `member` under the interval."""
        self._root = _added(self._root, start, _bound_of(end), member)

    def remove(self, start: bytes, end: bytes | None, member: Member) -> None:
        """Undo :meth:`add`; raises ``KeyError`` for what was not added."""
        self._root = _removed(self._root, start, _bound_of(end), member)

    def containing(self, key: bytes) -> Iterator[Member]:
        """Yield the members whose interval holds `key`."""
        behind = (False, key)
        todo = [self._root]
        while todo:
            node = todo.pop()
            if node is None or node.furthest <= behind:
                continue
            todo.append(node.left)
            if node.start <= key:
                if node.bound > behind:
                    yield from node.members
                todo.append(node.right)

    def _check(self) -> None:
        _check_node(self._root)


def _bound_of(end: bytes | None) -> _Bound:
    return (True, b"") if end is None else (False, end)


def _added(
    node: _Node[Member] | None, start: bytes, bound: _Bound, member: Member
) -> _Node[Member]:
    if node is None:
        node = _Node(start, bound)
    if (start, bound) == (node.start, node.bound):
        node.members[member] = None
        return node
    if (start, bound) < (node.start, node.bound):
        node.left = child = _added(node.left, start, bound, member)
        if child.priority > node.priority:
            node.left, child.right = child.right, node
            node.update()
            node = child
    else:
        node.right = child = _added(node.right, start, bound, member)
        if child.priority > node.priority:
            node.right, child.left = child.left, node
            node.update()
            node = child
    node.update()
    return node


def _removed(
    node: _Node[Member] | None, start: bytes, bound: _Bound, member: Member
) -> _Node[Member] | None:
    if node is None:
        raise KeyError(start)
    if (start, bound) == (node.start, node.bound):
        del node.members[member]
        return node if node.members else _joined(node.left, node.right)
    if (start, bound) < (node.start, node.bound):
        node.left = _removed(node.left, start, bound, member)
    else:
        node.right = _removed(node.right, start, bound, member)
    node.update()
    return node


def _joined(left: _Node[Member] | None, right: _Node[Member] | None) -> _Node[Member] | None:
    """Return one tree of two, all of `left` being before all of `right`."""
    if left is None or right is None:
        return left or right
    if left.priority >= right.priority:
        left.right = _joined(left.right, right)
        left.update()
        return left
    right.left = _joined(left, right.left)
    right.update()
    return right


def _check_node(node: _Node[Member] | None) -> list[tuple[bytes, _Bound]]:
    """Return the intervals of the subtree in order, having checked its invariants."""
    if node is None:
        return []
    for child in (node.left, node.right):
        assert child is None or child.priority <= node.priority
    assert node.members
    here = [*_check_node(node.left), (node.start, node.bound), *_check_node(node.right)]
    assert here == sorted(set(here))
    assert node.furthest == max(bound for _, bound in here)
    return here
