"""Element-wise ops and their gradients have a small *relative* error, for results of any size.

An absolute tolerance does not find a sigmoid(-20) of 0 instead of 2e-9, although its logarithm is
then infinite. So the arguments have both signs and range, in equal steps of the logarithm, from the
subnormal numbers to where results overflow. Errors are measured in `eps` times the *result*. The
true values come from mpmath.

If a result is the small difference of larger terms, errors are relative to the terms. (The
gradients of silu and gelu are 0 at one point each.) If an exponent u is rounded, eᵘ has |u| times
the error: this is `condition`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath as mp
import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, grad
from minigrad.nn import functional as F
from minigrad.ops import TEXTBOOK, activations, elementwise, trigonometry

DTYPES = [np.float32, np.float64]


@pytest.fixture(autouse=True)
def many_digits():
    with mp.workdps(40):
        yield


def sigma(x: Any) -> Any:
    return 1 / (1 + mp.exp(-x)) if abs(x) < 2000 else mp.mpf(int(x > 0))


def softplus(x: Any) -> Any:
    return mp.log1p(mp.exp(x)) if x < 2000 else x


def cdf(x: Any) -> Any:
    return mp.erfc(-x / mp.sqrt(2)) / 2 if abs(x) < 60 else mp.mpf(int(x > 0))


def density(x: Any) -> Any:
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi) if abs(x) < 60 else mp.mpf(0)


def inner(x: Any) -> Any:
    """2u, where gelu's tanh form is x·σ(2u)."""
    return 2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf(0.044715) * x**3)


def inner_slope(x: Any) -> Any:
    return 2 * mp.sqrt(2 / mp.pi) * (1 + 3 * mp.mpf(0.044715) * x**2)


@dataclass(frozen=True)
class Truth:
    """A function of one number, its derivative, and the bounds for errors of ours.

    Attributes:
        ours: the function on tensors.
        value, slope: the true value and derivative.
        bounds: bounds for the errors of value and gradient, in eps.
        domain: the arguments that are tried.
        terms: the size to which errors of the gradient are relative, if not to its value.
        condition: the factor by which rounding errors grow, for an argument.
    """

    ours: Callable[[Tensor], Tensor]
    value: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    bounds: tuple[float, float]
    domain: Callable[[np.ndarray], Any] = lambda x: np.isfinite(x)
    terms: Callable[[Any], Any] | None = None
    condition: Callable[[Any], Any] = lambda x: 1


UNARY = {
    "negative": Truth(mg.negative, lambda x: -x, lambda x: -1, (0, 0)),
    "abs": Truth(mg.abs, abs, mp.sign, (0, 0)),
    "relu": Truth(mg.relu, lambda x: max(x, 0), lambda x: int(x > 0), (0, 0)),
    "clip": Truth(
        lambda x: mg.clip(x, -2, 3),
        lambda x: min(max(x, -2), 3),
        lambda x: int(-2 <= x <= 3),
        (0, 0),
    ),
    "exp": Truth(mg.exp, mp.exp, mp.exp, (2, 2), lambda x: x < np.log(np.finfo(x.dtype).max) - 1),
    "expm1": Truth(
        mg.expm1, mp.expm1, mp.exp, (2, 2), lambda x: x < np.log(np.finfo(x.dtype).max) - 1
    ),
    "log": Truth(mg.log, mp.log, lambda x: 1 / x, (2, 1), lambda x: x > 0),
    "log1p": Truth(mg.log1p, mp.log1p, lambda x: 1 / (1 + x), (2, 2), lambda x: x > -0.99),
    "sqrt": Truth(mg.sqrt, mp.sqrt, lambda x: 1 / (2 * mp.sqrt(x)), (1, 2), lambda x: x > 0),
    "log2": Truth(
        mg.log2, lambda x: mp.log(x, 2), lambda x: 1 / (x * mp.log(2)), (2, 3), lambda x: x > 0
    ),
    "log10": Truth(mg.log10, mp.log10, lambda x: 1 / (x * mp.log(10)), (2, 3), lambda x: x > 0),
    "clone": Truth(mg.clone, lambda x: x, lambda x: 1, (0, 0)),
    "tan": Truth(mg.tan, mp.tan, lambda x: mp.sec(x) ** 2, (2, 6), lambda x: np.abs(x) < 1e4),
    "arcsin": Truth(
        mg.arcsin, mp.asin, lambda x: 1 / mp.sqrt(1 - x * x), (2, 3), lambda x: np.abs(x) < 1
    ),
    "arccos": Truth(
        mg.arccos, mp.acos, lambda x: -1 / mp.sqrt(1 - x * x), (2, 3), lambda x: np.abs(x) < 1
    ),
    "arctan": Truth(mg.arctan, mp.atan, lambda x: 1 / (1 + x * x), (2, 4)),
    "sinh": Truth(
        mg.sinh, mp.sinh, mp.cosh, (2, 2), lambda x: np.abs(x) < np.log(np.finfo(x.dtype).max) - 1
    ),
    "cosh": Truth(
        mg.cosh, mp.cosh, mp.sinh, (2, 2), lambda x: np.abs(x) < np.log(np.finfo(x.dtype).max) - 1
    ),
    "arcsinh": Truth(mg.arcsinh, mp.asinh, lambda x: 1 / mp.sqrt(1 + x * x), (3, 3)),
    "arccosh": Truth(
        mg.arccosh, mp.acosh, lambda x: 1 / mp.sqrt(x * x - 1), (3, 4), lambda x: x > 1
    ),
    "arctanh": Truth(
        mg.arctanh, mp.atanh, lambda x: 1 / (1 - x * x), (3, 3), lambda x: np.abs(x) < 1
    ),
    "sin": Truth(mg.sin, mp.sin, mp.cos, (2, 2), lambda x: np.abs(x) < 1e4),
    "cos": Truth(mg.cos, mp.cos, lambda x: -mp.sin(x), (2, 2), lambda x: np.abs(x) < 1e4),
    "tanh": Truth(mg.tanh, mp.tanh, lambda x: mp.sech(x) ** 2, (2, 4)),
    "erf": Truth(mg.erf, mp.erf, lambda x: 2 * mp.exp(-x * x) / mp.sqrt(mp.pi), (4, 4)),
    "normal_cdf": Truth(mg.normal_cdf, cdf, density, (6, 4)),
    "sigmoid": Truth(mg.sigmoid, sigma, lambda x: sigma(x) * sigma(-x), (3, 4)),
    "softplus": Truth(mg.softplus, softplus, sigma, (3, 3)),
    "softplus, as logsigmoid": Truth(
        mg.logsigmoid, lambda x: -softplus(-x), lambda x: sigma(-x), (3, 3)
    ),
    "softplus, beta 0.5": Truth(
        lambda x: mg.softplus(x, 0.5), lambda x: 2 * softplus(x / 2), lambda x: sigma(x / 2), (3, 3)
    ),
    "silu": Truth(
        mg.silu,
        lambda x: x * sigma(x),
        lambda x: sigma(x) * (1 + x * sigma(-x)),
        (4, 5),
        terms=lambda x: sigma(x) * (1 + abs(x) * sigma(-x)),
    ),
    "gelu": Truth(
        mg.gelu,
        lambda x: x * cdf(x),
        lambda x: cdf(x) + x * density(x),
        (6, 6),
        terms=lambda x: cdf(x) + abs(x) * density(x),
    ),
    "gelu, tanh": Truth(
        lambda x: mg.gelu(x, "tanh"),
        lambda x: x * sigma(inner(x)),
        lambda x: sigma(inner(x)) * (1 + x * sigma(-inner(x)) * inner_slope(x)),
        (4, 6),
        terms=lambda x: sigma(inner(x)) * (1 + abs(x) * sigma(-inner(x)) * inner_slope(x)),
        condition=lambda x: 1 + min(abs(inner(x)), 1000),
    ),
}
for exponent in (2, 3, 1, 0.5, -0.5, -1, -2, 1.5):
    UNARY[f"power_scalar, {exponent}"] = Truth(
        lambda x, p=exponent: x**p,
        lambda x, p=exponent: x**p,
        lambda x, p=exponent: p * x ** (p - 1),
        (2, 4),
        domain=lambda x: x > 0,
    )

BINARY = {"add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "where"}
BINARY |= {"hypot", "arctan2", "remainder", "logaddexp"}


def arguments(dtype: Any, number: int = 50) -> np.ndarray:
    """Arguments of both signs, from subnormal numbers to near the largest, denser around 1."""
    limits = np.finfo(dtype)
    smallest, largest = np.log10(float(limits.smallest_normal)) - 3, np.log10(float(limits.max))
    exponents = np.concatenate(
        [
            np.linspace(smallest, -2, number // 3),
            np.linspace(-2, 3, number),
            np.linspace(3, largest - 0.01, number // 3),
        ]
    )
    x = (10**exponents).astype(dtype)
    return np.concatenate([-x[::-1], x])


def assert_accurate(
    what: str,
    got: np.ndarray,
    true: list[Any],
    units: list[Any],
    bound: float,
    factors: list[Any] | None = None,
) -> None:
    """|got - true| <= bound·eps·unit, and numbers beyond the dtype's range become infinite.

    Below the smallest normal number a dtype has fewer digits, so a unit is at least that number. If
    an intermediate result is so small and is then multiplied by one of `factors`, the unit is at
    least that factor times the smallest normal number.
    """
    limits = np.finfo(got.dtype)
    eps, tiny, largest = float(limits.eps), float(limits.smallest_normal), float(limits.max)
    factors = [1] * len(true) if factors is None else factors
    smallest = [tiny * max(1, abs(factor)) for factor in factors]
    for i, (g, t, unit) in enumerate(zip(got.tolist(), true, units, strict=True)):
        if abs(t) > largest * (1 - eps):
            assert abs(g) >= largest * (1 - 8 * eps), f"{what}: {g} at {i} instead of {t}"
            continue
        error = float(abs(mp.mpf(g) - t) / (eps * max(abs(unit), smallest[i])))
        assert error <= bound, f"{what}: {g} instead of {mp.nstr(mp.mpf(t), 17)}, {error:.3g} eps"


def test_every_element_wise_op_is_here() -> None:
    own = [op for page in (elementwise, activations, trigonometry) for op in vars(page).values()]
    pages = {name for name, op in TEXTBOOK.items() if op in own}
    assert pages - {"astype", "clip_between"} == {name.split(",")[0] for name in UNARY} | BINARY


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_function_of_one_number(name: str, dtype: Any) -> None:
    truth = UNARY[name]
    numbers = arguments(dtype)
    numbers = numbers[truth.domain(numbers)]
    x = Tensor(numbers, requires_grad=True)
    exact = [mp.mpf(float(n)) for n in numbers]
    conditions = [truth.condition(e) for e in exact]
    value = [truth.value(e) for e in exact]
    slope = [truth.slope(e) for e in exact]
    terms = slope if truth.terms is None else [truth.terms(e) for e in exact]
    units = [v * c for v, c in zip(value, conditions, strict=True)]
    slope_units = [s * c for s, c in zip(terms, conditions, strict=True)]
    upstream = Tensor(np.ones_like(numbers))
    with np.errstate(over="ignore"):  # a power may overflow
        y = truth.ours(x)
        dx = grad(y, x, upstream)
        on_tensors = grad(truth.ours(x), x, upstream, create_graph=True)
    assert y.dtype == dx.dtype == on_tensors.dtype == dtype
    factors = exact if name.startswith(("silu", "gelu")) else None  # x times a tiny number
    assert_accurate(name, y.numpy(), value, units, truth.bounds[0], factors)
    for how, found in (("", dx), (" with create_graph", on_tensors)):
        what = f"gradient of {name}{how}"
        assert_accurate(what, found.numpy(), slope, slope_units, truth.bounds[1], factors)


def remainder(x: Any, y: Any) -> Any:
    x, y = Fraction(float(x)), Fraction(float(y))
    rest = x % y
    return mp.mpf(rest.numerator) / rest.denominator


def whole_quotient(x: Any, y: Any) -> Any:
    return mp.mpf(Fraction(float(x)) // Fraction(float(y)))


PAIRS: dict[str, tuple[Callable[..., Tensor], Callable[..., Any], Any, Any, tuple[float, ...]]] = {
    "multiply": (mg.multiply, lambda x, y: x * y, lambda x, y: y, lambda x, y: x, (1, 1, 1)),
    "divide": (
        mg.divide,
        lambda x, y: x / y,
        lambda x, y: 1 / y,
        lambda x, y: -x / y**2,
        (1, 1, 2),
    ),
    "add": (mg.add, lambda x, y: x + y, lambda x, y: 1, lambda x, y: 1, (1, 0, 0)),
    "subtract": (mg.subtract, lambda x, y: x - y, lambda x, y: 1, lambda x, y: -1, (1, 0, 0)),
    "maximum": (mg.maximum, max, lambda x, y: int(x > y), lambda x, y: int(y > x), (0, 0, 0)),
    "minimum": (mg.minimum, min, lambda x, y: int(x < y), lambda x, y: int(y < x), (0, 0, 0)),
    "where": (
        lambda x, y: mg.where(np.asarray(x.numpy() > 1), x, y),
        lambda x, y: x if x > 1 else y,
        lambda x, y: int(x > 1),
        lambda x, y: int(not x > 1),
        (0, 0, 0),
    ),
    "hypot": (
        mg.hypot,
        lambda x, y: mp.sqrt(x * x + y * y),
        lambda x, y: x / mp.sqrt(x * x + y * y),
        lambda x, y: y / mp.sqrt(x * x + y * y),
        (2, 3, 3),
    ),
    "arctan2": (
        mg.arctan2,
        mp.atan2,
        lambda y, x: x / (x * x + y * y),
        lambda y, x: -y / (x * x + y * y),
        (3, 4, 4),
    ),
    "remainder": (
        mg.remainder,
        remainder,
        lambda x, y: 1,
        lambda x, y: -whole_quotient(x, y),
        (1, 0, 3),
    ),
    "power": (
        mg.power,
        lambda x, y: x**y,
        lambda x, y: y * x ** (y - 1),
        lambda x, y: x**y * mp.log(x),
        (2, 3, 3),
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
def test_function_of_two_numbers(name: str, dtype: Any) -> None:
    ours, value, by_x, by_y, bounds = PAIRS[name]
    numbers = arguments(dtype, 9)
    others = numbers * dtype(0.75)
    if name in ("hypot", "arctan2"):  # so that √(x² + y²) is a number
        numbers = numbers[np.abs(numbers) < np.finfo(dtype).max / 2]
    if name == "power":
        numbers = numbers[numbers > 4 * np.finfo(dtype).smallest_normal]
        others = others[np.abs(others) < 1e3]
    x = Tensor(np.repeat(numbers, len(others)), requires_grad=True)
    y = Tensor(np.tile(others, len(numbers)), requires_grad=True)
    exact = [(mp.mpf(a), mp.mpf(b)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    upstream = Tensor(np.ones_like(x.numpy()))
    with np.errstate(all="ignore"):  # products and powers may overflow
        z = ours(x, y)
        gradients = grad(z, [x, y], upstream)
        on_tensors = grad(ours(x, y), [x, y], upstream, create_graph=True)
    true = [value(a, b) for a, b in exact]
    # The exponent y - 1 is rounded, and that error is multiplied by ln x.
    conditions = [1 + abs((b - 1) * mp.log(a)) if name == "power" else 1 for a, b in exact]
    assert_accurate(name, z.numpy(), true, true, bounds[0])
    for i, slope in enumerate((by_x, by_y)):
        true = [mp.mpf(slope(a, b)) for a, b in exact]
        units = [t * c for t, c in zip(true, conditions, strict=True)]
        for how, found in (("", gradients), (" with create_graph", on_tensors)):
            what = f"gradient {i} of {name}{how}"
            assert found[i].dtype == dtype
            factors = None  # the divisor of a quotient, the factor of a power
            if name in ("divide", "power", "arctan2", "hypot"):
                factor = {
                    "divide": lambda a, b: 1 / b,
                    "power": lambda a, b: max(abs(b), abs(mp.log(a))),
                    "arctan2": lambda a, b: 1 / mp.hypot(a, b),
                    "hypot": lambda a, b: 1 / mp.hypot(a, b),
                }[name]
                factors = [factor(a, b) for a, b in exact]
            assert_accurate(what, found[i].numpy(), true, units, bounds[1 + i], factors)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_logarithm_of_a_sum_of_exponentials(dtype: Any) -> None:
    """The larger number and ln(1 + e^-d) may cancel, and their distance d is rounded."""
    numbers = arguments(dtype, 12)
    numbers = numbers[np.abs(numbers) < np.finfo(dtype).max / 4]
    x = Tensor(np.repeat(numbers, len(numbers)), requires_grad=True)
    y = Tensor(np.tile(numbers * dtype(0.75), len(numbers)), requires_grad=True)
    exact = [(mp.mpf(a), mp.mpf(b)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    z = mg.logaddexp(x, y)
    parts = [(max(a, b), softplus(-abs(a - b))) for a, b in exact]
    true, units = [a + b for a, b in parts], [abs(a) + b for a, b in parts]
    assert_accurate("logaddexp", z.numpy(), true, units, 2)
    for graph in (False, True):
        found = grad(z, [x, y], mg.ones_like(z), create_graph=graph, retain_graph=True)
        for dx, sign in zip(found, (1, -1), strict=True):
            shares = [sigma(sign * (a - b)) for a, b in exact]
            units = [s * (1 + abs(a - b)) for s, (a, b) in zip(shares, exact, strict=True)]
            assert_accurate("gradient of logaddexp", dx.numpy(), shares, units, 4)


def test_a_sigmoid_far_out_keeps_its_digits() -> None:
    """It was once 0, with an infinite logarithm and a gradient of NaN."""
    x = Tensor([-20.0, -100.0], requires_grad=True)
    y = mg.sigmoid(x)
    np.testing.assert_allclose(y.numpy(), [2.0611536e-9, 3.783506e-44], rtol=1e-6, atol=1e-45)
    loss = -mg.log(mg.sigmoid(x[:1]))
    assert loss.item() == pytest.approx(20, rel=1e-6)
    loss.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([-1, 0], rel=1e-6)
    assert mg.logsigmoid(Tensor([-1e30, 1e30])).tolist() == [np.float32(-1e30), 0]


SURE = [
    [20.0, 0.0, -3.0],
    [0.0, -20.0, -80.0],
    [-30.0, 5.0, 5.5],
    [1000.0, 980.0, 0.0],
    [3.0, 3.0, 3.0],
    [33.0, 18.0, 16.0],
    [0.0, -3.0, -4.0],
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loss_of_a_sure_prediction_keeps_its_digits(dtype: Any) -> None:
    """ln Σ e^z - z_t, where both terms are 20 and their difference is 2e-9."""
    exact = [[mp.mpf(z) for z in row] for row in SURE]
    log_sums = [
        max(row) + mp.log1p(mp.fsum(mp.exp(z - max(row)) for z in row) - 1) for row in exact
    ]
    log_p = [[z - total for z in row] for row, total in zip(exact, log_sums, strict=True)]
    z = Tensor(np.array(SURE, dtype))
    assert_accurate("logsumexp", mg.logsumexp(z, 1).numpy(), log_sums, log_sums, 3)
    flat = [p for row in log_p for p in row]
    assert_accurate("log_softmax", mg.log_softmax(z).numpy().reshape(-1), flat, flat, 3)
    p = [mp.exp(value) for value in flat]
    units = [v * (1 + abs(mp.log(v))) for v in p]
    assert_accurate("softmax", mg.softmax(z).numpy().reshape(-1), p, units, 3)
    for context in (mg.textbook, mg.enable_grad):
        with context():
            for target in range(3):
                loss = F.cross_entropy(z, np.full(len(SURE), target), reduction="none")
                true = [-row[target] for row in log_p]
                # in the kernel, larger losses have the rounding errors of ln Σ and of the logit
                units = [t if t < 1 / 16 else max(t, 40) for t in true]
                assert_accurate("cross_entropy", loss.numpy(), true, units, 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_the_soft_max_family(dtype: Any) -> None:
    """The terms dy and p·Σ dy may cancel, so errors are relative to them; p has its own error."""
    dy = np.array([0.75, -1.5, 0.5])
    exact = [[mp.mpf(z) for z in row] for row in SURE]
    for name in ("softmax", "log_softmax", "logsumexp"):
        z = Tensor(np.array(SURE, dtype), requires_grad=True)
        y = getattr(mg, name)(z, axis=-1)
        upstream = np.ones(len(SURE)) if name == "logsumexp" else np.tile(dy, (len(SURE), 1))
        for graph in (False, True):
            dz = grad(y, z, Tensor(upstream.astype(dtype)), create_graph=graph, retain_graph=True)
            for row, found in zip(exact, dz.numpy(), strict=True):
                e = [mp.exp(v - max(row)) for v in row]
                p = [v / mp.fsum(e) for v in e]
                carried = [1 + abs(v - max(row)) for v in row]
                if name == "softmax":
                    mean = mp.fsum(d * q for d, q in zip(dy, p, strict=True))
                    true = [q * (d - mean) for d, q in zip(dy, p, strict=True)]
                    units = [q * 3 * c for q, c in zip(p, carried, strict=True)]
                elif name == "log_softmax":
                    true = [d - q * dy.sum() for d, q in zip(dy, p, strict=True)]
                    units = [1 + q * c for q, c in zip(p, carried, strict=True)]
                else:
                    true, units = p, [q * c for q, c in zip(p, carried, strict=True)]
                assert_accurate(f"gradient of {name}", found, true, units, 4)
