"""Matrix products."""

from minigrad.ops.summation import sum_of


class matmul:
    """z = x @ y for stacks of matrices, x (..., N, K), y (..., K, M), z (..., N, M)

    dx = dz @ yᵀ,  dy = xᵀ @ dz; the engine sums over broadcast stack axes. A vector takes part as
    a matrix of one row (left) or one column (right), and that axis is dropped from the result.
    """

    @staticmethod
    def forward(xp, x, y):
        if x.ndim == 0 or y.ndim == 0:
            raise ValueError("a number has no matrix product; use * instead")
        return xp.matmul(x, y), (x, y)

    @staticmethod
    def backward(xp, dz, saved, needs):
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


class einsum:
    """A product of arrays summed over the indices that the output lacks.

    The gradient of operand i is the einsum of dy and the other operands to i's own indices; an
    index that stands in operand i alone was summed out, so its gradient is repeated along it; one
    along which operand i was broadcast is summed.
    `minigrad.einsum` removes ellipses and repeated indices before they come here.
    """

    @staticmethod
    def forward(xp, *operands, subscripts):
        return xp.einsum(subscripts, *operands), operands

    @staticmethod
    def backward(xp, dy, operands, needs, *, subscripts):
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
            g = xp.einsum(
                ",".join([output, *others]) + "->" + "".join(reachable),
                dy,
                *[x for j, x in enumerate(operands) if j != i],
            )
            sizes = iter(g.shape)
            kept = tuple(next(sizes) if c in reachable else 1 for c in term)
            gradients.append(xp.broadcast_to(xp.reshape(g, kept), shape))
        return tuple(gradients)
