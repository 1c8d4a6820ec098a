"""NumPy's functions on tensors: those that minigrad has keep the graph, others raise an error."""

import copy
import math
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor, nn
from minigrad.functions import numpy_protocol
from tests.minigrad.functions.test_registry import WITHOUT_DERIVATIVE

ALLOWED = numpy_protocol._QUESTIONS
# Arguments for functions whose first argument is not simply an array.
ARGUMENTS: dict[str, Callable[[Tensor], tuple[Any, ...]]] = {
    "where": lambda w: (w > 0, w, 0.0),
    "concatenate": lambda w: ([w, w],),
    "clip": lambda w: (w, 0.1, 2.0),
    "einsum": lambda w: ("ij,ij", w, w),
    "broadcast_to": lambda w: (w, (3, 2, 2)),
    "expand_dims": lambda w: (w, 0),
    "reshape": lambda w: (w, 4),
    "pad": lambda w: (w, 1),
    "split": lambda w: (w, 2),
    "stack": lambda w: ([w, w],),
    "swapaxes": lambda w: (w, 0, 1),
    "take": lambda w: (w, [0]),
    "astype": lambda w: (w, np.float64),
    "full_like": lambda w: (w, 3.0),
    "einsum_path": lambda w: ("ij,ij", w, w),
    **dict.fromkeys(("arccos", "arcsin", "arctanh"), lambda w: (w * 0.3,)),
    **dict.fromkeys(("acos", "asin", "atanh"), lambda w: (w * 0.3,)),
    **dict.fromkeys(("arccosh", "acosh"), lambda w: (w + 1,)),
    **dict.fromkeys(("cumulative_prod", "cumulative_sum"), lambda w: (w[0],)),
    **dict.fromkeys(("dot", "outer", "tensordot"), lambda w: (w, w)),
    "moveaxis": lambda w: (w, 0, 1),
    "repeat": lambda w: (w, 2),
    "roll": lambda w: (w, 1),
    "tile": lambda w: (w, 2),
    "searchsorted": lambda w: (w[0], w),
    "take_along_axis": lambda w: (w, np.array([[1], [0]]), 1),
    "meshgrid": lambda w: (w[0], w[1]),
    "linalg.cross": lambda w: (np.ones(3), mg.ravel(w)[:3]),
    "linalg.cholesky": lambda w: (w @ w.T,),
    "linalg.matrix_power": lambda w: (w, 3),
    "linalg.outer": lambda w: (w[0], w[1]),
    **dict.fromkeys(
        ("linalg.matmul", "linalg.tensordot", "linalg.vecdot", "linalg.solve"), lambda w: (w, w)
    ),
}
NO_GRADIENT = {*WITHOUT_DERIVATIVE, "zeros_like", "ones_like", "full_like"}
# Parts of messages: of functions that refuse floats, or floats in a graph.
REFUSED = ("works on bits", "no gradient")
NOT_TRIED = {"nextafter", "empty_like", "linspace", "invert", "left_shift", "right_shift"}
NOT_TRIED |= {name for name in dir(np) if "bitwise" in name}


def weights() -> Tensor:
    return Tensor([[0.5, 1.5], [2.5, 0.25]], requires_grad=True)


def numpys_functions() -> Iterator[tuple[str, Any]]:
    """All public functions that accept arrays, with their names."""
    for space, prefix in ((np, ""), (np.linalg, "linalg."), (np.fft, "fft.")):
        for name in sorted(space.__all__):
            function = getattr(space, name)
            if isinstance(function, np.ufunc) or hasattr(function, "_implementation"):
                yield prefix + name, function


FUNCTIONS = list(numpys_functions())
OFFERED = [
    name
    for name, function in FUNCTIONS
    if name not in NOT_TRIED | ALLOWED
    and (
        function in numpy_protocol._offered_functions()
        or function in numpy_protocol._offered_ufuncs()
    )
]


def test_there_are_functions_to_try() -> None:
    assert len(FUNCTIONS) > 300 and len(OFFERED) > 140


def tensors_of(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (list, tuple)) else [result]


def says_what_to_do(error: BaseException) -> bool:
    return ".numpy()" in str(error) and ".detach()" in str(error)


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[n for n, _ in FUNCTIONS])
def test_no_function_of_numpy_cuts_a_graph_silently(name: str, function: Any) -> None:
    """Each is called in several ways. The result is a tensor, or an error that says what to do."""
    w = weights()
    candidates = [(w,), (w, w), ([w, w],), (w, 1)]
    if not isinstance(function, np.ufunc):
        candidates += [(w, w, w), (w, 0, 1), (w, w, w, 0)]
    if name in ARGUMENTS:
        candidates.append(ARGUMENTS[name](w))
    seen = 0
    for args in candidates:
        try:
            with np.errstate(invalid="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's `fix` from 2.5 on
                result = function(*args)
        except TypeError as error:
            if says_what_to_do(error) or any(text in str(error) for text in REFUSED):
                seen += 1
            continue
        except (ValueError, AttributeError, IndexError):  # it cannot be called in this way
            continue
        for part in tensors_of(result):
            assert isinstance(part, Tensor) or name in ALLOWED
        seen += 1
    assert seen or name in ALLOWED, "no way of calling it reached the tensor"


@pytest.mark.parametrize("name", OFFERED)
def test_offered_functions_are_minigrads(name: str) -> None:
    w = weights()
    function = dict(FUNCTIONS)[name]
    args = ARGUMENTS[name](w) if name in ARGUMENTS else (w,) * getattr(function, "nin", 1)
    expected = function(*[_plain(a) for a in args])
    results = tensors_of(function(*args))
    for got, want in zip(results, tensors_of(expected), strict=True):
        assert isinstance(got, Tensor)
        if name != "linalg.slogdet":  # its sign has no gradient
            assert got.requires_grad == (name not in NO_GRADIENT and got.dtype.kind == "f")
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy()
    return [_plain(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "use",
    [
        lambda w: np.sum(w, 1),
        lambda w: np.sum(w, axis=(0, 1), keepdims=True),
        lambda w: np.sum(w, None, None, None, True),
        lambda w: np.mean(w, axis=0),
        lambda w: np.var(w, axis=1, ddof=1),
        lambda w: np.max(w, 0),
        lambda w: np.amax(w, axis=1, keepdims=True),
        lambda w: np.amin(w, 1),
        lambda w: np.concatenate([w, np.ones((1, 2))], axis=0),
        lambda w: np.concatenate((w, w), 1),
        lambda w: np.stack([w, w], axis=-1),
        lambda w: np.stack([w, w], -1, dtype=None),
        lambda w: np.clip(w, 0.3, None),
        lambda w: np.clip(w, min=0.3, max=1.0),
        lambda w: np.clip(w, a_min=0.3, a_max=w + 1),
        lambda w: np.pad(w, ((1, 0), (0, 2)), constant_values=7.0),
        lambda w: np.pad(w, 1, "constant"),
        lambda w: np.take(w, [1, 0], axis=1),
        lambda w: np.split(w, [1], axis=1)[1],
        lambda w: np.transpose(w, (1, 0)),
        lambda w: np.squeeze(np.expand_dims(w, (0, 3)), axis=0),
        lambda w: np.reshape(w, (-1,)),
        lambda w: np.einsum("ij->j", w),
        lambda w: np.where(np.asarray([[True, False], [False, True]]), w, -w),
        lambda w: np.where(w > 1, w, 0),
        lambda w: np.ones((3, 2)) @ w,
        lambda w: np.ones(2) + w,
        lambda w: np.ones(2) - w,
        lambda w: np.ones(2) / w,
        lambda w: np.full(2, 2.0) ** w,
        lambda w: np.float32(2) * w,
        lambda w: np.matmul(w, w),
        lambda w: np.maximum(w, 1),
        lambda w: np.power(w, 2),
        lambda w: np.exp(w),
        lambda w: np.absolute(w),
        lambda w: np.true_divide(1, w),
        lambda w: np.sum(w, dtype=np.float64),
        lambda w: np.prod(w, 0, np.float64),
        lambda w: np.std(w, 0, None, None, 0, False, correction=1),
        lambda w: np.sort(w, 0),
        lambda w: np.cumsum(w, dtype=np.float64),
        lambda w: np.diagonal(w, 1),
        lambda w: np.linalg.norm(w, axis=1),
        lambda w: np.linalg.solve(w, np.ones(2)),
        lambda w: np.take_along_axis(w, np.array([[1], [0]]), axis=1),
        lambda w: np.tensordot(w, w, axes=([0], [1])),
        lambda w: np.repeat(w, 2, axis=0),
        lambda w: np.meshgrid(w[0], w[1], indexing="ij")[1],
        lambda w: np.remainder(w, 0.4),
    ],
)
def test_values_and_gradients_are_right(use: Callable[[Any], Any]) -> None:
    w = Tensor(weights().numpy().astype(np.float64), requires_grad=True)
    result = use(w)
    assert isinstance(result, Tensor) and result.requires_grad
    np.testing.assert_allclose(result.numpy(), use(w.numpy().copy()), rtol=1e-12)
    assert mg.gradcheck(use, [w])


@pytest.mark.parametrize(
    "use",
    [
        lambda w: np.sum(w, out=np.zeros(())),
        lambda w: np.sum(w, initial=1.0),
        lambda w: np.sum(w, where=np.ones((2, 2), bool)),
        lambda w: np.max(w, initial=3.0),
        lambda w: np.var(w, 0, None, None, 0, False, mean=0.0),
        lambda w: np.take(w, [0], mode="clip"),
        lambda w: np.take(w, [0], None, None, "wrap"),
        lambda w: np.pad(w, 1, "edge"),
        lambda w: np.pad(w, 1, mode="reflect"),
        lambda w: np.reshape(w, 4, order="F"),
        lambda w: np.concatenate([w, w], dtype=np.float64),
        lambda w: np.concatenate([w, w], out=np.zeros((4, 2))),
        lambda w: np.stack([w, w], out=np.zeros((2, 2, 2))),
        lambda w: np.einsum("ij->j", w, optimize=True),
        lambda w: np.einsum(w, [0, 1], [1]),
        lambda w: np.add.reduce(w),
        lambda w: np.add.accumulate(w),
        lambda w: np.multiply.outer(w, w),
        lambda w: np.add.reduceat(w, [0]),
        lambda w: np.add.at(np.ones((2, 2)), (0, 0), w),
        lambda w: np.add(w, 1, out=np.zeros((2, 2), np.float32)),
        lambda w: np.add(w, 1, dtype=np.float64),
        lambda w: np.sqrt(w, where=np.ones((2, 2), bool)),
        lambda w: np.exp(np.ones((2, 2)), out=w),
        lambda w: np.copyto(np.zeros((2, 2)), w),
        lambda w: np.vstack([w, w]),
        lambda w: np.block([[w, w]]),
        lambda w: np.linalg.eigh(w),
        lambda w: np.sort(w, kind="stable"),
        lambda w: np.cumsum(w, out=np.zeros(4)),
        lambda w: np.ones(2).dot(w),
        lambda w: np.cbrt(w),
        lambda w: np.median(w),
        lambda w: np.array([w, w]),
        lambda w: np.array([[w[0], w[1]]]),
        lambda w: np.array([w[0, 0], 1.0]),
        lambda w: np.asarray(w),
        lambda w: np.asarray([w], np.float64),
        lambda w: np.float32(w),
        lambda w: np.mean([w, w]),
        lambda w: np.max((w[0, 0], w[1, 1])),
        lambda w: np.where([True, False], [w[0], w[1]], 0.0),
        lambda w: np.ones((2, 2)).clip(w, 3),
        lambda w: np.zeros((2, 2)).__setitem__(Ellipsis, w),
        lambda w: np.zeros((2, 2)).searchsorted(w),
        lambda w: np.random.default_rng(0).normal(w, 1),
        lambda w: np.full((2, 2), w),
        lambda w: np.vectorize(lambda x: x)(w),
        lambda w: np.apply_along_axis(lambda x: x, 0, w),
        lambda w: np.testing.assert_allclose(w, w),
        lambda w: np.r_[w, w],
    ],
)
def test_what_is_not_offered_says_what_to_do(use: Callable[[Tensor], Any]) -> None:
    w = weights()
    for x in (w, w * 2):
        with pytest.raises(TypeError, match=r"\.numpy\(\).*\.detach\(\)"):
            use(x)


def test_an_array_cannot_become_a_tensor_in_place() -> None:
    array, w = np.ones((2, 2), np.float32), weights()
    for change in ("__iadd__", "__imul__", "__itruediv__", "__imatmul__"):
        with pytest.raises(TypeError, match=r"y = y \+ x.*\.numpy\(\).*\.detach\(\)"):
            getattr(array, change)(w)
    assert (array == 1).all()
    same = array
    array *= w.detach()
    assert array is same and array.tolist() == w.tolist()


def test_questions_are_answered() -> None:
    w = weights()
    assert np.shape(w) == (2, 2) and np.ndim(w) == 2 and np.size(w) == 4
    assert np.array_equal(w, w.numpy()) and np.allclose(w, w) and not np.array_equal(w, w + 1)
    assert np.result_type(w, np.float64) == np.float64


def test_a_tensor_outside_of_graphs_is_an_array_to_numpy() -> None:
    w = weights().detach()
    assert isinstance(np.exp(w), Tensor) and isinstance(np.sum(w, 0), Tensor)
    assert np.median(w) == np.median(w.numpy()) and np.add.reduce(w).tolist() == [3.0, 1.75]
    assert np.sum(w, dtype=np.float64).dtype == np.float64
    assert isinstance(np.linalg.norm(w), Tensor) and np.sort(w, kind="heapsort").shape == (2, 2)
    assert np.linalg.eigvals(w).shape == (2,)
    assert np.cbrt(w).shape == (2, 2) and np.ones(2).dot(w).tolist() == [3.0, 1.75]
    assert np.array([w, w]).shape == (2, 2, 2)
    np.testing.assert_allclose(w, w.numpy())
    target = mg.zeros((2, 2))
    assert np.add(w, 1, out=target) is target and target.tolist() == (w + 1).tolist()
    np.add.at(target, (0, 0), 1)
    assert target[0, 0].item() == 2.5


def test_a_result_written_to_a_tensor_is_noticed() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    scale = Tensor([3.0, 4.0])
    for write in (
        lambda: np.add(np.ones(2), 1, out=scale),
        lambda: np.add.at(scale, 0, 1),
        lambda: np.copyto(scale, np.zeros(2)),
        lambda: np.put(scale, [0], 9.0),
    ):
        y = (x * scale).sum()
        write()
        with pytest.raises(mg.InPlaceError):
            y.backward()


def test_nothing_is_cut_under_no_grad() -> None:
    p = nn.Parameter([1.0, 4.0])
    with mg.no_grad():
        assert np.asarray(p).tolist() == [1, 4] and np.median(p) == 2.5
        assert isinstance(np.sqrt(p), Tensor)
        array = np.ones(2, np.float32)
        array += p
        assert array.tolist() == [2, 5]


def test_logical_operators_take_arrays_on_the_left() -> None:
    mask, x = np.array([True, False]), Tensor([1.0, -1.0], requires_grad=True)
    assert (mask & (x > 0)).tolist() == [True, False]
    assert (mask | (x < 0)).tolist() == [True, True]
    assert np.invert(x > 0).tolist() == [False, True]
    assert (np.array([1, 2]) & (x > 0)).tolist() == [1, 0]
    with pytest.raises(TypeError, match="works on bits"):
        mask & x


# Lists, numbers and what Python itself does


@pytest.mark.parametrize(
    "make",
    [
        lambda a: Tensor([a, a]),
        lambda a: Tensor([[a, a]]),
        lambda a: Tensor([[a, 1.0], [2.0, 3.0]]),
        lambda a: Tensor((1.0, (a, a))[1]),
        lambda a: Tensor([[[a]]], np.float64),
        lambda a: mg.asarray([[a, a]]),
        lambda a: nn.Parameter([a, a]),
        lambda a: Tensor(a),
        lambda a: Tensor(a * 2, np.float64),
        lambda a: Tensor(a, requires_grad=True),
        lambda a: mg.where(Tensor([True, False]), [a, a], 0.0),
        lambda a: mg.sum([a, a]),
        lambda a: mg.add([a, a], 1.0),
        lambda a: mg.ones(2) * [a, a],
        lambda a: mg.maximum(mg.ones(2), [a, a]),
        lambda a: mg.clip(mg.ones(2), [a, a], 2.0),
        lambda a: mg.pad(mg.ones(2), 1, constant_values=a),
        lambda a: mg.linspace(a, 2 * a, 5),
        lambda a: mg.linspace(0.0, a),
        lambda a: mg.arange(0.0, a, 0.5),
        lambda a: mg.arange(a),
        lambda a: mg.full((2,), [a, a]),
        lambda a: mg.full((2,), a, requires_grad=True),
        lambda a: mg.zeros(2).assign([a, a]),
        lambda a: mg.zeros(2).__setitem__(slice(None), [a, a]),
        lambda a: mg.zeros(2).__setitem__(0, a),
    ],
)
@pytest.mark.parametrize("node", [False, True])
def test_lists_of_tensors_do_not_lose_their_graph(make: Any, node: bool) -> None:
    a = Tensor(2.0, requires_grad=True)
    with pytest.raises((TypeError, ValueError, mg.InPlaceError), match="detach"):
        make(a * 1 if node else a)


def test_numbers_of_a_vector_are_refused_in_a_list() -> None:
    w = weights()
    for make in (lambda: Tensor([w, w]), lambda: Tensor([list(w)]), lambda: Tensor([[w[0]], [w]])):
        with pytest.raises((TypeError, ValueError), match=r"minigrad\.stack"):
            make()


def test_asarray_of_a_tensor_is_the_tensor() -> None:
    w = weights()
    assert mg.asarray(w) is w and mg.asarray(w, np.float32) is w
    assert mg.grad(mg.asarray(w, np.float64).sum(), w).tolist() == [[1, 1], [1, 1]]
    assert mg.asarray(w, requires_grad=True) is w
    leaf = mg.asarray(w.detach(), requires_grad=True)
    assert leaf is not w and leaf.is_leaf and leaf.requires_grad
    assert mg.asarray(w, device="cpu") is w


def test_full_of_a_tensor_keeps_the_graph() -> None:
    a = Tensor(2.0, requires_grad=True)
    assert mg.grad(mg.full((2, 3), a).sum(), a).item() == 6
    assert mg.grad(mg.full_like(mg.ones(4), a * 3).sum(), a).item() == 12
    b = Tensor(2.0)
    filled = mg.full(3, b)
    filled[0] = 1
    assert filled.tolist() == [1, 2, 2] and b.item() == 2
    assert mg.full(2, b, requires_grad=True).is_leaf


def test_numbers_out_of_plain_tensors() -> None:
    assert mg.linspace(Tensor(0.0), Tensor(1.0), 3).tolist() == [0, 0.5, 1]
    assert mg.arange(Tensor(3)).tolist() == [0, 1, 2]
    assert Tensor([[Tensor(1.0), 2.0]]).tolist() == [[1, 2]]


def test_python_keeps_the_graph() -> None:
    a, b = Tensor(2.0, requires_grad=True), Tensor(3.0, requires_grad=True)
    assert mg.grad(sum([a, b]), a).item() == 1
    assert max(a, b) is b and min([a, b]) is a and sorted([b, a])[0] is a
    w = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    first, *_, last = w
    assert mg.grad(first * last, w).tolist() == [3, 0, 1]
    assert [x.item() for x in reversed(w)] == [3, 2, 1] and next(iter(reversed(w))).requires_grad
    assert abs(w).requires_grad and (+w).requires_grad and (w % 2).requires_grad
    assert math.prod([a, b]).requires_grad
    for use in (round, lambda x: divmod(x, 2)):
        with pytest.raises(TypeError):
            use(w)
    assert float(a) == 2 and f"{a.item():.1f}" == "2.0"


def test_a_shallow_copy_stays_in_the_graph() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = copy.copy(x * 3)
    assert mg.grad((y * y).sum(), x).tolist() == [18, 36]
    leaf = copy.copy(x)
    assert leaf.requires_grad and leaf.is_leaf and np.shares_memory(leaf.data, x.data)
    leaf.assign([5.0, 6.0])
    assert x.tolist() == [5, 6]


def test_pickling() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(TypeError, match=r"cannot be pickled with its graph: use \.detach\(\)"):
        pickle.dumps(x * 2)
    (x * x).sum().backward()
    y = pickle.loads(pickle.dumps(x))
    assert y.requires_grad and y.tolist() == [1, 2] and y.grad.tolist() == [2, 4]
    model = nn.Linear(2, 2, rng=mg.Generator(0))
    twin = pickle.loads(pickle.dumps(model))
    assert isinstance(twin.weight, nn.Parameter)
    assert np.array_equal(twin.weight.numpy(), model.weight.numpy())
    assert [n for n, _ in twin.named_parameters()] == ["weight", "bias"]


def test_cupys_elementwise_functions_by_their_names() -> None:
    """CuPy calls the tensor's method, which learns the function from the kernel's name."""
    w = weights()
    kernel = type("Kernel", (), {"name": "cupy_add"})()
    result = w.__cupy_override_elementwise_kernel__(kernel, np.ones(2, np.float32), w)
    assert result.requires_grad and result.tolist() == (w + 1).tolist()
    for args, options in (((np.ones(2), w, np.ones(2)), {}), ((w, w), {"out": np.ones(2)})):
        with pytest.raises(TypeError, match=r"cupy\.add would cut.*\.numpy\(\)"):
            w.__cupy_override_elementwise_kernel__(kernel, *args, **options)
    kernel.name = "my_kernel"
    with pytest.raises(TypeError, match="my_kernel would cut"):
        w.__cupy_override_elementwise_kernel__(kernel, w)
