"""Norms, inverses, determinants and factors of matrices (..., N, N).

The gradients are those of M. Giles, "Collected matrix derivative results for forward and reverse
mode algorithmic differentiation" (2008). NumPy computes with LAPACK, CuPy with cuSOLVER.
"""

from typing import Any

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.cumulative import products_of_others
from minigrad.ops.special import on_tensors
from minigrad.ops.summation import sum_of


def _transposed(xp: Xp, x: Array) -> Array:
    return xp.swapaxes(x, -1, -2)


class norm(Op):
    """y = √Σ x² over the last axis;  dx = dy·x/y, 0 where y is 0

    It squares x/m, where m is the largest |x|, so that squares neither overflow nor vanish.
    """

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
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
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs) -> Gradients:
        x, y = saved
        y = xp.expand_dims(xp.where(y == 0, 1, y), -1)
        return (xp.expand_dims(dy, -1) * (x / y),)


class inv(Op):
    """Y = X⁻¹;  dX = -Yᵀ dY Yᵀ"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        y = xp.linalg.inv(x)
        return y, y

    @staticmethod
    def backward(xp: Xp, dy: Array, y: Array, needs: Needs) -> Gradients:
        y = _transposed(xp, y)
        return (-xp.matmul(xp.matmul(y, dy), y),)


class solve(Op):
    """X with A X = B, A (..., N, N), B (..., N, K);  dB = A⁻ᵀ dX, dA = -dB Xᵀ"""

    @staticmethod
    def forward(xp: Xp, a: Array, b: Array) -> Result:
        x = xp.linalg.solve(a, b)
        return x, (a, x)

    @staticmethod
    def backward(xp: Xp, dx: Array, saved: Saved, needs: Needs) -> Gradients:
        a, x = saved
        db = xp.linalg.solve(_transposed(xp, a), dx)
        return -xp.matmul(db, _transposed(xp, x)) if needs[0] else None, db


class det(Op):
    """y = det X;  dX = dy·C, where C are the cofactors of X: det(X)·X⁻ᵀ, if X is not singular"""

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        return xp.linalg.det(x), x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (xp.expand_dims(dy, (-1, -2)) * _cofactors(xp, x),)


def _cofactors(xp: Xp, x: Array) -> Array:
    """With X = U·diag(s)·Vᵀ they are det(U)·det(V)·U·diag(products of the other s)·Vᵀ.

    There is no division, so X may be singular. On tensors, for second derivatives, it may not.
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
    def forward(xp: Xp, x: Array) -> Result:
        return xp.linalg.slogdet(x)[1], x

    @staticmethod
    def backward(xp: Xp, dy: Array, x: Array, needs: Needs) -> Gradients:
        return (xp.expand_dims(dy, (-1, -2)) * _transposed(xp, xp.linalg.inv(x)),)


class singular_values(Op):
    """s, in descending order, with X = U·diag(s)·Vᵀ;  dX = U·diag(ds)·Vᵀ

    X is (..., M, N), s (..., K), K = min(M, N). Where values are equal, U and V are not unique, but
    a sum of all values has the right gradient. Second derivatives need those of U and V; see `svd`.
    """

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        u, s, vt = _factors(xp, x)
        return s, (u, vt)

    @staticmethod
    def backward(xp: Xp, ds: Array, saved: Saved, needs: Needs) -> Gradients:
        u, vt = saved
        return (xp.matmul(u * xp.expand_dims(ds, -2), vt),)


class svd(Op):
    """[Uᵀ | s | Vᵀ] side by side, (..., K, M + 1 + N), for the second derivatives of s

    With F_ij = 1/(s_j² - s_i²), 0 for i = j, and A∘B element by element (J. Townsend,
    "Differentiating the singular value decomposition", 2016):

        dX = [U (F∘(Uᵀ dU - dUᵀ U)) S + (I - U Uᵀ) dU S⁻¹] Vᵀ + U diag(ds) Vᵀ
             + U [S (F∘(Vᵀ dV - dVᵀ V)) Vᵀ + S⁻¹ dVᵀ (I - V Vᵀ)]

    Where two values are equal U and V have no derivative, and this is not finite.
    """

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        u, s, vt = _factors(xp, x)
        packed = [_transposed(xp, u), xp.expand_dims(s, -1), vt]
        return xp.concatenate(packed, axis=-1), (u, s, vt)

    @staticmethod
    def backward(xp: Xp, dy: Array, saved: Saved, needs: Needs) -> Gradients:
        u, s, vt = saved
        m, k, n = u.shape[-2], s.shape[-1], vt.shape[-1]
        ut, v = _transposed(xp, u), _transposed(xp, vt)
        du, ds, dvt = _transposed(xp, dy[..., :m]), dy[..., m], dy[..., m + 1 :]
        across, down = xp.expand_dims(s, -2), xp.expand_dims(s, -1)
        same = xp.tril(xp.triu(xp.ones_like(across * down)))
        f = (1 - same) / (across**2 - down**2 + same)
        for_u, for_v = xp.matmul(ut, du), xp.matmul(dvt, v)  # the second is (Vᵀ dV)ᵀ
        turned = f * (for_u - _transposed(xp, for_u)) * across
        turned = turned + down * f * (_transposed(xp, for_v) - for_v)
        dx = xp.matmul(xp.matmul(u, turned + same * xp.expand_dims(ds, -2)), vt)
        if m > k:
            dx = dx + xp.matmul((du - xp.matmul(u, for_u)) / across, vt)
        if n > k:
            dx = dx + xp.matmul(u, (dvt - xp.matmul(for_v, vt)) / down)
        return (dx,)


def _factors(xp: Xp, x: Array) -> tuple[Array, Array, Array]:
    """U (..., M, K), s (..., K) and Vᵀ (..., K, N) with X = U·diag(s)·Vᵀ."""
    if not on_tensors(xp):
        return xp.linalg.svd(x, full_matrices=False)
    m = x.shape[-2]
    y = xp.linalg.packed_svd(x)
    return _transposed(xp, y[..., :m]), y[..., m], y[..., m + 1 :]


class cholesky(Op):
    """L, lower triangular, with L Lᵀ = X, symmetric and positive definite

    dX = (S + Sᵀ)/2,  S = L⁻ᵀ Φ(Lᵀ dL) L⁻¹, where Φ takes the lower triangle and halves its
    diagonal (Murray, arXiv:1602.07527). NumPy reads the lower triangle of X alone; the gradient is
    that of a symmetric X.
    """

    @staticmethod
    def forward(xp: Xp, x: Array) -> Result:
        lower = xp.linalg.cholesky(x)
        return lower, lower

    @staticmethod
    def backward(xp: Xp, dlower: Array, lower: Any, needs: Needs) -> Gradients:
        upper = _transposed(xp, lower)
        product = xp.matmul(upper, dlower)
        phi = (xp.tril(product) + xp.tril(product, -1)) * 0.5
        half = xp.linalg.solve(upper, phi)  # L⁻ᵀ Φ
        s = _transposed(xp, xp.linalg.solve(upper, _transposed(xp, half)))  # (L⁻ᵀ (L⁻ᵀ Φ)ᵀ)ᵀ
        return ((s + _transposed(xp, s)) * 0.5,)
