"""Leaving out of a backward pass the nodes that lead to no wanted gradient."""

from __future__ import annotations

from collections.abc import Iterable

from minigrad.graph import Node, Variable


class Paths:
    """The part of a graph that leads to tensors that are wanted.

    Attributes:
        wanted: the nodes of those that are results of ops.
        useful: the nodes through which a gradient flows to a wanted tensor. The value is False for
            the node of a wanted tensor if nothing below it is wanted.
    """

    def __init__(self, outputs: Iterable[Variable], wanted: Iterable[Variable]) -> None:
        self.wanted: dict[Node, Variable] = {x.node: x for x in wanted if x.node is not None}
        self._leaves = {x for x in wanted if x.node is None}
        reachable: dict[Node, None] = {}
        stack = [x.node for x in outputs if x.node is not None]
        while stack:
            node = stack.pop()
            if node not in reachable:
                reachable[node] = None
                node.check_kept()
                stack.extend(x.node for x in node.inputs if x is not None and x.node is not None)
        self.useful: dict[Node, bool] = {}
        leaves, useful = self._leaves, self.useful
        for node in sorted(reachable, key=lambda n: n.order):
            leads = any(x is not None and (x in leaves or x.node in useful) for x in node.inputs)
            if leads or node in self.wanted:
                useful[node] = leads

    def end_at(self, node: Node) -> bool:
        """Whether nothing below a node is wanted."""
        return not self.useful[node]

    def needs_of(self, node: Node) -> tuple[bool, ...]:
        """Which inputs of a node lead to something that is wanted."""
        leaves, useful = self._leaves, self.useful
        return tuple(
            [
                needed and (x in leaves or x.node in useful)
                for needed, x in zip(node.needs, node.inputs, strict=True)
            ]
        )
