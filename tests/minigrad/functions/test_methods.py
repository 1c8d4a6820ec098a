"""Operators and methods equal the functions of the same names, if NumPy or PyTorch has them."""

import operator

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from minigrad.functions.methods import Methods

F = mg.functions
# PyTorch's methods mean something else: whether all are equal, sizes of sections, other arguments.
OTHER_MEANING = {"equal", "split", "scatter_add"}
LINALG = [name for name in mg.linalg.__all__ if name not in F.__all__]


def missing(theirs: type) -> set[str]:
    return {
        name
        for name in [*F.__all__, *LINALG]
        if hasattr(theirs, name) and not hasattr(Tensor, name)
    } - OTHER_MEANING


def test_what_is_a_method_in_numpy_is_one_here() -> None:
    assert missing(np.ndarray) == set()


def test_what_is_a_method_in_pytorch_is_one_here() -> None:
    torch = pytest.importorskip("torch")
    assert missing(torch.Tensor) == set()


def test_a_method_is_the_function_of_its_name() -> None:
    for name, method in vars(Methods).items():
        if name.startswith("__") or name in ("copy", "reshape", "transpose", "tile", "where"):
            continue
        if name != "to_device":
            assert method is getattr(F, name, None) or method is getattr(mg.linalg, name), name
        assert getattr(Tensor, name) is method


BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lt", "le", "gt", "ge", "eq")
BINARY += ("ne", "matmul")
BITS = ("and_", "or_", "xor", "lshift", "rshift")
IN_PLACE = {"and_": "iand", "or_": "ior"}


@pytest.mark.parametrize("name", BINARY + BITS)
@pytest.mark.parametrize("dtype", ["int32", "float64", "bool"])
def test_operators_are_numpys(name: str, dtype: str) -> None:
    if (name in BITS and dtype == "float64") or (name in ("lshift", "rshift") and dtype == "bool"):
        with pytest.raises(TypeError, match="works on bits"):
            getattr(operator, name)(mg.ones(2, dtype), mg.ones(2, dtype))
        return
    if dtype == "bool" and name not in ("and_", "or_", "xor", "eq", "ne", "lt", "le", "gt", "ge"):
        return
    x = np.array([[5, 7], [1, 2]]).astype(dtype)
    y = np.array([3, 2]).astype(dtype)
    function = getattr(operator, name)
    number = True if dtype == "bool" else 3
    for left, right in ((x, y), (x, x), (x, number), (number, x)):
        if name == "matmul" and np.ndim(left) * np.ndim(right) == 0:
            continue
        want = function(left, right)
        if dtype == "int32" and name == "truediv":
            want = want.astype(np.float32)
        tensors = [Tensor(v) if isinstance(v, np.ndarray) else v for v in (left, right)]
        cases = [tensors, [left, tensors[1]], [tensors[0], right]]
        for a, b in cases:
            if not isinstance(a, Tensor) and not isinstance(b, Tensor):
                continue
            got = function(a, b)
            assert isinstance(got, Tensor) and got.dtype == want.dtype
            np.testing.assert_allclose(got.numpy(), want, 1e-6)


@pytest.mark.parametrize("name", ("floordiv", "mod", *BITS))
def test_operators_in_place_write_to_the_memory(name: str) -> None:
    changed = IN_PLACE.get(name, f"i{name}")
    x, y = np.array([5, 7, 9]), np.array([3, 2, 1])
    want = getattr(operator, name)(x, y)
    tensor = Tensor(x.copy())
    view = tensor[1:]
    result = getattr(operator, changed)(tensor, y)
    assert result is tensor
    np.testing.assert_array_equal(tensor.numpy(), want)
    np.testing.assert_array_equal(view.numpy(), want[1:])


def test_signs_and_inversions() -> None:
    x = mg.arange(-2, 3)
    assert (+x).tolist() == x.tolist() and (-x).tolist() == [2, 1, 0, -1, -2]
    assert (~x).tolist() == [1, 0, -1, -2, -3] and (~(x > 0)).tolist() == [True] * 3 + [False] * 2
    with pytest.raises(TypeError, match="works on bits"):
        ~mg.ones(2)
    x = Tensor([5.0, -5.0], requires_grad=True)
    assert (x % 3).tolist() == [2, 1] and (7 // x).tolist() == [1, -2]
    assert not (x // 2).requires_grad
    assert mg.grad((x % 3 + 7 % x).sum(), x).tolist() == [0, 3]


def test_methods_with_arguments_of_their_own() -> None:
    x = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert x.reshape(3, 2).shape == x.reshape((3, 2)).shape == (3, 2)
    assert x.transpose(1, 0).shape == x.transpose((1, 0)).shape == x.transpose().shape == (3, 2)
    assert x.tile(2, 1).shape == x.tile((2, 1)).shape == (4, 3)
    assert x.where(x > 2, 0).tolist() == [[0, 0, 3], [4, 5, 6]]
    assert x.mT.shape == (3, 2) and mg.ones((2, 3, 4)).mT.shape == (2, 4, 3)
    with pytest.raises(mg.ShapeError):
        mg.ones(3).mT  # noqa: B018
    assert x.std(1, 1).tolist() == [1, 1] and x.std(0, correction=1).shape == (3,)
    assert x.topk(1).indices.tolist() == [[2], [2]] and x.sort(descending=True)[0, 0].item() == 3
    assert x.any().item() and x.all().item() and x.norm().item() == pytest.approx(91**0.5)
    assert x.prod().item() == 720 and x.cumsum(1)[1].tolist() == [4, 9, 15]


def test_an_axis_that_is_not_there_is_an_index_error_too() -> None:
    """The standard requires this for `expand_dims`."""
    for wrong in (lambda x: x.expand_dims(3), lambda x: x.flip(2), lambda x: x.cumsum(-3)):
        with pytest.raises(IndexError, match="out of range"):
            wrong(mg.ones((2, 2)))


def test_what_has_no_gradient_says_so_in_a_graph() -> None:
    x = mg.ones((2, 2), requires_grad=True)
    with pytest.raises(TypeError, match=r"no gradient.*\.detach\(\)"):
        mg.nextafter(x, 2.0)
    with mg.no_grad():
        assert not mg.nextafter(x, 2.0).requires_grad
    for flat in (x.floor(), x // 2, x.sign(), x.round(), x.trunc(), x.ceil()):
        assert not flat.requires_grad


def test_gradients_of_norms_of_singular_values() -> None:
    """Of any order. Singular values may be equal if the norm depends on all of them."""
    x = mg.Tensor(np.eye(3), requires_grad=True)
    np.testing.assert_allclose(mg.grad(mg.linalg.matrix_norm(x, ord="nuc"), x).numpy(), np.eye(3))
    a = np.random.default_rng(0).standard_normal((4, 3))
    u, _, vt = np.linalg.svd(a, full_matrices=False)
    for order, wanted in ((2, np.outer(u[:, 0], vt[0])), ("nuc", u @ vt)):
        x = mg.Tensor(a, requires_grad=True)
        y = mg.linalg.matrix_norm(x, ord=order)
        np.testing.assert_allclose(mg.grad(y, x).numpy(), wanted, atol=1e-13)
    for turned in (a, a.T, a[:3], a[:1]):  # tall, wide, square, a row

        def second(x: mg.Tensor) -> mg.Tensor:
            y = mg.linalg.matrix_norm(x, ord="nuc") * mg.linalg.matrix_norm(x, ord=2)
            return mg.grad(y, x, create_graph=True)

        def third(x: mg.Tensor) -> mg.Tensor:
            return mg.grad(second(x).cos().sum(), x, create_graph=True)

        for function in (second, third):
            mg.gradcheck(function, [mg.Tensor(turned.copy(), requires_grad=True)])


def test_the_gradient_of_long_products() -> None:
    """The number of steps is the logarithm of the number of factors, and zeros give no NaN."""
    rng = np.random.default_rng(1)
    for size in (*range(10), 1000):
        x = rng.uniform(0.9, 1.1, size)
        x[3::4] = 0 if size < 10 else 1
        dy, wanted = rng.standard_normal(size), np.zeros(size)
        gathered = 0.0
        for j in reversed(range(size)):
            gathered = dy[j] + (x[j + 1] if j + 1 < size else 0) * gathered
            wanted[j] = np.prod(x[:j]) * gathered
        leaf = mg.Tensor(x, requires_grad=True)
        got = mg.grad((mg.cumprod(leaf) * dy).sum(), leaf)
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-10, atol=1e-12)


def test_gradients_at_special_points() -> None:
    zero = mg.zeros(3, requires_grad=True)
    assert mg.grad(zero.norm(), zero).tolist() == [0, 0, 0]
    assert mg.grad(zero.std(), zero).tolist() == [0, 0, 0]
    assert mg.grad(mg.hypot(zero, 0.0).sum(), zero).tolist() == [0, 0, 0]
    x = Tensor([np.inf, -np.inf, 1.0], requires_grad=True)
    assert mg.grad(mg.logaddexp(x, x), x, mg.ones(3)).tolist() == [1, 1, 1]
    tied = Tensor([2.0, 1.0, 2.0], requires_grad=True)
    weights = Tensor([1.0, 10.0, 100.0])
    assert mg.grad((tied.sort() * weights).sum(), tied).tolist() == [10, 1, 100]
    assert mg.grad((tied.sort(descending=True) * weights).sum(), tied).tolist() == [1, 100, 10]
    assert mg.topk(Tensor([1.0, np.nan, 3.0]), 2).indices.tolist() == [1, 2]
    big = Tensor([3e30, 4e30], requires_grad=True)
    assert big.norm().item() == pytest.approx(5e30)
    assert mg.grad(big.norm(), big).tolist() == pytest.approx([0.6, 0.8])
    assert Tensor([3e-30, 4e-30]).norm().item() == pytest.approx(5e-30)
    cubes = mg.linalg.vector_norm(big, ord=3)
    assert cubes.item() == pytest.approx(91 ** (1 / 3) * 1e30)
    assert mg.grad(cubes, big).tolist() == pytest.approx([9 / 91 ** (2 / 3), 16 / 91 ** (2 / 3)])
    singular = Tensor([[1.0, 2.0], [2.0, 4.0]], requires_grad=True)
    want = np.array([[4.0, -2.0], [-2.0, 1.0]])
    np.testing.assert_allclose(mg.grad(singular.det(), singular).numpy(), want, 1e-5, 1e-6)
    nothing = mg.zeros((3, 3), requires_grad=True)
    assert (mg.grad(nothing.det(), nothing).numpy() == 0).all()
    assert mg.to_device(nothing, "cpu").requires_grad


def test_long_running_sums_and_products_keep_their_digits() -> None:
    tenths = mg.full(300_000, 0.1)
    assert mg.cumsum(tenths)[-1].item() == pytest.approx(30_000.00044703484, rel=1e-7)
    near = mg.full(100_000, 1.0001)
    true = float(np.cumprod(near.numpy().astype(np.float64))[-1])
    assert mg.cumprod(near)[-1].item() == pytest.approx(true, rel=1e-7)


def test_a_standard_deviation_of_float16_is_computed_wide() -> None:
    x = Tensor(np.array([-3000.0, 3000.0], np.float16), requires_grad=True)
    assert x.std().item() == 3000 and x.std().dtype == np.float16
    assert mg.grad(x.std(), x).tolist() == [-0.5, 0.5]
