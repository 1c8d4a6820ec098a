"""Norms, inverses, determinants and factors of matrices (..., N, N).

The gradients are those of M. Giles, "Collected matrix derivative results for forward and reverse
mode algorithmic differentiation" (2008). NumPy and CuPy compute in LAPACK's and cuSOLVER's words.
"""

from minigrad.op import Op
from minigrad.ops.cumulative import products_of_others
from minigrad.ops.special import on_tensors
from minigrad.ops.summation import sum_of


def _transposed(xp, x):
    return xp.swapaxes(x, -1, -2)


class norm(Op):
    """y = √Σ x² over the last axis;  dx = dy·x/y, 0 where y is 0

    The squares are of x/m, m the largest |x|, so that they neither overflow nor vanish.
    """

    @staticmethod
    def forward(xp, x):
        if on_tensors(xp):
            y = xp.linalg.vector_norm(x, axis=-1)
            return y, (x, y)
        if x.shape[-1] == 0:
            return xp.sum(x, axis=-1), (x, xp.sum(x, axis=-1))
        m = xp.max(xp.abs(x), axis=-1, keepdims=True)
        m = xp.where((m > 0) & xp.isfinite(m), m, 1)
        y = m[..., 0] * xp.sqrt(sum_of(xp, (x / m) ** 2, -1))
        return y, (x, y)

    @staticmethod
    def backward(xp, dy, saved, needs):
        x, y = saved
        y = xp.expand_dims(xp.where(y == 0, 1, y), -1)
        return (xp.expand_dims(dy, -1) * (x / y),)


class inv(Op):
    """Y = X⁻¹;  dX = -Yᵀ dY Yᵀ"""

    @staticmethod
    def forward(xp, x):
        y = xp.linalg.inv(x)
        return y, y

    @staticmethod
    def backward(xp, dy, y, needs):
        y = _transposed(xp, y)
        return (-xp.matmul(xp.matmul(y, dy), y),)


class solve(Op):
    """X with A X = B, A (..., N, N), B (..., N, K);  dB = A⁻ᵀ dX, dA = -dB Xᵀ"""

    @staticmethod
    def forward(xp, a, b):
        x = xp.linalg.solve(a, b)
        return x, (a, x)

    @staticmethod
    def backward(xp, dx, saved, needs):
        a, x = saved
        db = xp.linalg.solve(_transposed(xp, a), dx)
        return -xp.matmul(db, _transposed(xp, x)) if needs[0] else None, db


class det(Op):
    """y = det X;  dX = dy·C, where C are the cofactors of X: det(X)·X⁻ᵀ, if X is not singular"""

    @staticmethod
    def forward(xp, x):
        return xp.linalg.det(x), x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (xp.expand_dims(dy, (-1, -2)) * _cofactors(xp, x),)


def _cofactors(xp, x):
    """With X = U·diag(s)·Vᵀ they are det(U)·det(V)·U·diag(products of the other s)·Vᵀ.

    Nothing is divided by, so X may be singular. On tensors, for second derivatives, it may not.
    """
    if on_tensors(xp):
        scale = xp.expand_dims(xp.linalg.det(x), (-1, -2))
        return scale * _transposed(xp, xp.linalg.inv(x))
    u, s, vt = xp.linalg.svd(x)
    sign = xp.expand_dims(xp.linalg.det(u) * xp.linalg.det(vt), (-1, -2))
    return sign * xp.matmul(u * xp.expand_dims(products_of_others(xp, s), -2), vt)


class log_abs_det(Op):
    """y = ln |det X|;  dX = dy·X⁻ᵀ"""

    @staticmethod
    def forward(xp, x):
        return xp.linalg.slogdet(x)[1], x

    @staticmethod
    def backward(xp, dy, x, needs):
        return (xp.expand_dims(dy, (-1, -2)) * _transposed(xp, xp.linalg.inv(x)),)


class cholesky(Op):
    """L, lower triangular, with L Lᵀ = X, symmetric and positive definite

    dX = (S + Sᵀ)/2,  S = L⁻ᵀ Φ(Lᵀ dL) L⁻¹, where Φ takes the lower triangle and halves its
    diagonal (Murray, arXiv:1602.07527). NumPy reads the lower triangle of X alone; the gradient is
    that of a symmetric X.
    """

    @staticmethod
    def forward(xp, x):
        lower = xp.linalg.cholesky(x)
        return lower, lower

    @staticmethod
    def backward(xp, dlower, lower, needs):
        upper = _transposed(xp, lower)
        product = xp.matmul(upper, dlower)
        phi = (xp.tril(product) + xp.tril(product, -1)) * 0.5
        half = xp.linalg.solve(upper, phi)  # L⁻ᵀ Φ
        s = _transposed(xp, xp.linalg.solve(upper, _transposed(xp, half)))  # (L⁻ᵀ (L⁻ᵀ Φ)ᵀ)ᵀ
        return ((s + _transposed(xp, s)) * 0.5,)
