"""Matmuls."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.summation import BLOCK, sum_of


class matmul(Op):
    """z = x @ y for stacks of matrices, x (..., N, K), y (..., K, M), z (..., N, M)

    dx = dz @ yᵀ,  dy = xᵀ @ dz; the engine sums over broadcast stack axes. A vector takes part as
    a matrix of one row (left) or one column (right), and that axis is dropped from the result.
    """

    @staticmethod
    def forward(xp: Xp, x: Array, y: Array) -> Result:
        if x.ndim == 0 or y.ndim == 0:
            raise ValueError("a number has no matrix product; use * instead")
        return xp.matmul(x, y), (x, y)

    @staticmethod
    def backward(xp: Xp, dz: Array, saved: Saved, needs: Needs) -> Gradients:
        x, y = saved
        x_is_vector, y_is_vector = x.ndim == 1, y.ndim == 1
        if x_is_vector:
            x = xp.expand_dims(x, 0)  # (1, K)
            dz = xp.expand_dims(dz, -1 if y_is_vector else -2)  # (..., 1, M)
        if y_is_vector:
            y = xp.expand_dims(y, 1)  # (K, 1)
            dz = xp.expand_dims(dz, -1)  # (..., N, 1)
        dx = dy = None
        if needs[0]:
            dx = xp.matmul(dz, xp.swapaxes(y, -1, -2))
            if x_is_vector:
                dx = sum_of(xp, dx, tuple(range(dx.ndim - 1)))
        if needs[1]:
            dy = xp.matmul(xp.swapaxes(x, -1, -2), dz)
            if y_is_vector:
                dy = sum_of(xp, xp.squeeze(dy, axis=-1), tuple(range(dy.ndim - 2)))
        return dx, dy


class einsum(Op):
    """A product of arrays summed over the indices that the output lacks.

    The gradient of operand i is the einsum of dy and the other operands to i's own indices. An
    index that only operand i has was summed out, so the gradient is repeated along it. Along an
    index where operand i was broadcast, the gradient is summed. `minigrad.einsum` removes ellipses
    and repeated indices before they come here.
    """

    @staticmethod
    def forward(xp: Xp, *operands: Array, subscripts: str) -> Result:
        return contract(xp, subscripts, operands), operands

    @staticmethod
    def backward(xp: Xp, dy: Array, operands: Any, needs: Needs, *, subscripts: str) -> Gradients:
        left, output = subscripts.split("->")
        terms = left.split(",")
        gradients: list = []
        for i, (term, need) in enumerate(zip(terms, needs, strict=True)):
            if not need:
                gradients.append(None)
                continue
            shape = operands[i].shape
            others = [t for j, t in enumerate(terms) if j != i]
            known = set(output).union(*others)
            reachable = [c for c, n in zip(term, shape, strict=True) if c in known and n != 1]
            g = contract(
                xp,
                ",".join([output, *others]) + "->" + "".join(reachable),
                [dy, *[x for j, x in enumerate(operands) if j != i]],
            )
            sizes = iter(g.shape)
            kept = tuple(next(sizes) if c in reachable else 1 for c in term)
            gradients.append(xp.broadcast_to(xp.reshape(g, kept), shape))
        return tuple(gradients)


def contract(xp: Xp, subscripts: str, operands: Sequence[Array]) -> Array:
    """`einsum` of operands without repeated indices, whose long sums of floats are exact enough.

    NumPy's einsum adds products one by one. Here an index that only one operand has is summed first
    (see `minigrad.ops.summation`), and a long sum over an index that two operands share is a
    matmul, which BLAS adds in blocks.
    """
    if xp is not np or operands[0].dtype.kind != "f":
        return xp.einsum(subscripts, *operands)
    left, output = subscripts.split("->")
    terms, arrays = left.split(","), list(operands)
    for i, term in enumerate(terms):
        others = set(output).union(*terms[:i], *terms[i + 1 :])
        alone = tuple(axis for axis, letter in enumerate(term) if letter not in others)
        if alone and term.isalpha():
            arrays[i] = sum_of(xp, arrays[i], alone)
            terms[i] = "".join(letter for letter in term if letter in others)
    if len(terms) == 2:
        (a, b), (x, y) = terms, arrays
        size = dict(zip(b, y.shape, strict=True))
        for letter, n in zip(a, x.shape, strict=True):
            if size.get(letter, 1) == 1:  # an operand of size 1 is stretched
                size[letter] = n
        summed = "".join(letter for letter in a if letter in b and letter not in output)
        if prod(size[letter] for letter in summed) > BLOCK:
            return _as_matrices(x, y, a, b, summed, output, size)
    return xp.einsum(",".join(terms) + "->" + output, *arrays)


def _as_matrices(
    x: Array, y: Array, a: str, b: str, summed: str, output: str, size: dict[str, int]
) -> Array:
    """The einsum of two arrays, (batch, left, K) @ (batch, K, right), with indices a and b.

    K are the indices that are summed, the batch those that both and the output have. `size` has the
    size of each index, to which an axis of size 1 is stretched.
    """
    x = np.broadcast_to(x, [size[letter] for letter in a])
    y = np.broadcast_to(y, [size[letter] for letter in b])
    batch = "".join(letter for letter in a if letter in b and letter in output)
    left = "".join(letter for letter in a if letter not in b)
    right = "".join(letter for letter in b if letter not in a)
    n, m, k, p = (
        prod(size[letter] for letter in letters) for letters in (batch, left, summed, right)
    )
    x = np.einsum(f"{a}->{batch}{left}{summed}", x).reshape(n, m, k)
    y = np.einsum(f"{b}->{batch}{summed}{right}", y).reshape(n, k, p)
    found = batch + left + right
    product = np.matmul(x, y).reshape([size[letter] for letter in found])
    return np.einsum(f"{found}->{output}", product)
