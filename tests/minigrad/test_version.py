"""The engine detects every kind of write to an array that a graph has read."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import InPlaceError, Tensor, nn
from minigrad.optim import FlatParameters
from minigrad.version import checksum

SIZES = pytest.mark.parametrize("size", [1, 4, 5000, 70_001])


def decrement(a: Tensor) -> None:
    a.data -= 1


def scale(a: Tensor) -> None:
    a.data *= 2.0


def fill(a: Tensor) -> None:
    a.data[...] = 0


def item(a: Tensor) -> None:
    a.data[-1] += 1


def through_numpy(a: Tensor) -> None:
    a.numpy()[0] = 5


def through_a_view(a: Tensor) -> None:
    a.data[::2][0] = 5


def with_out(a: Tensor) -> None:
    np.add(a.data, 1, out=a.data)


def set_data(a: Tensor) -> None:
    a.data = a.data + 1


def set_data_to_a_tensor(a: Tensor) -> None:
    a.data = a.detach() + 1


def through_asarray(a: Tensor) -> None:
    np.asarray(a.detach())[0] = 5


def through_a_detached_tensor(a: Tensor) -> None:
    a.detach().data[0] = 5


def through_a_row(a: Tensor) -> None:
    a.detach()[:1].data[0] = 5


def through_dlpack(a: Tensor) -> None:
    shared = mg.from_dlpack(a.detach())
    if not shared.array.flags.writeable:
        pytest.skip(f"NumPy {np.__version__} shares arrays for reading alone")
    shared[0] = 5


def through_memory(a: Tensor) -> None:
    memoryview(a.data)[0] = 5.0


WRITES = [
    *(decrement, scale, fill, item, through_numpy, through_a_view, with_out, set_data),
    *(set_data_to_a_tensor, through_asarray, through_a_detached_tensor, through_a_row),
    *(through_dlpack, through_memory),
]


@SIZES
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("looked_at_before", [False, True])
def test_writes_between_forward_and_backward(
    write: Callable[[Tensor], None], size: int, looked_at_before: bool
) -> None:
    a = mg.Generator(0).normal(size) + 0.5
    a = Tensor(a, requires_grad=True)
    if looked_at_before:
        _ = a.data
    y = (a * a).sum()
    write(a)
    with pytest.raises(InPlaceError, match="'multiply'"):
        y.backward()
    (a * a).sum().backward()
    assert a.grad is not None
    np.testing.assert_allclose(a.grad.numpy(), 2 * a.numpy(), rtol=1e-6)


@SIZES
def test_the_owner_of_an_array_writes_to_it(size: int) -> None:
    array = np.random.default_rng(0).random(size)
    a = Tensor(array, requires_grad=True)
    y = (a * a).sum()
    array[size // 2] = 9
    with pytest.raises(InPlaceError):
        y.backward()
    batch = Tensor(array)
    w = Tensor(np.ones(size), requires_grad=True)
    y = (batch * w).sum()
    array[:] = array[::-1].copy() if size > 1 else 0.0
    with pytest.raises(InPlaceError):
        y.backward()


def test_a_handle_from_before_the_forward_pass() -> None:
    a = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    handle, part = a.data, a.data[1:]
    for target in (handle, part):
        y = (a * a).sum()
        target[0] += 1
        with pytest.raises(InPlaceError):
            y.backward()


def test_a_handle_of_another_view() -> None:
    x = mg.arange(6.0)
    a = Tensor(x, requires_grad=True)
    whole = x.numpy()
    y = (a[2:4] * a[2:4]).sum()
    whole[3] = 0
    with pytest.raises(InPlaceError):
        y.backward()


def test_intermediate_results() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    h = x * 2
    y = (h * h).sum()
    h.data[0] = 5
    with pytest.raises(InPlaceError):
        y.backward()
    y = mg.exp(x)
    y.data[0] = 5  # exp has saved its result
    with pytest.raises(InPlaceError, match="'exp': its result"):
        y.backward(mg.ones(2))


def test_reading_is_free() -> None:
    a = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    h = a * 3
    y = (h * a).sum()
    _ = a.data.sum(), a.numpy().copy(), h.data[0], y.data, repr(a), a.tolist(), h.numpy()[:1]
    y.backward()
    assert a.grad is not None and a.grad.tolist() == [6, 12]


def test_writes_before_and_after_are_allowed() -> None:
    a = Tensor([1.0, 2.0], requires_grad=True)
    for _ in range(3):
        a.data += 1
        y = (a * a).sum()
        y.backward()
        a.data[...] = a.data - 0.1
        a.grad = None
    assert np.allclose(a.numpy(), [3.7, 4.7])


def test_a_graph_that_is_kept_notices_later() -> None:
    a = Tensor([1.0, 2.0], requires_grad=True)
    y = (a * a).sum()
    y.backward(retain_graph=True)
    a.numpy()[0] = 5
    with pytest.raises(InPlaceError):
        mg.grad(y, a, create_graph=True)


def test_setting_data() -> None:
    a = Tensor([1.0, 2.0], requires_grad=True)
    a.data = np.array([[3.0]])
    assert a.shape == (1, 1) and a.requires_grad and a.is_leaf
    a.data = [4.0, 5.0]
    assert a.tolist() == [4, 5] and a.dtype == np.float32
    with pytest.raises(TypeError, match="holds floats, not int64"):
        a.data = np.array([1, 2])
    with pytest.raises(TypeError, match="detach"):
        a.data = a * 2
    with pytest.raises(TypeError, match="numbers"):
        a.data = None
    assert a.tolist() == [4, 5]
    a.data -= 0.5 * mg.ones(2)
    assert a.tolist() == [3.5, 4.5]


def test_flat_parameters() -> None:
    params = [nn.Parameter([1.0, 2.0]), nn.Parameter([[3.0]])]
    flat = FlatParameters(params)
    for write in (
        lambda: flat.data.__setitem__(2, 9.0),
        lambda: flat.data.__imul__(2.0),
        lambda: setattr(flat, "data", flat.data.__iadd__(1)),
        lambda: flat.changed(),
    ):
        y = (params[1] * params[1]).sum()
        write()
        with pytest.raises(InPlaceError):
            y.backward()
    with pytest.raises(ValueError, match=r"write to flat\.data\[\.\.\.\]"):
        flat.data = np.zeros(3, np.float32)


def test_changed_says_what_the_engine_cannot_see() -> None:
    a = Tensor([1.0, 2.0], requires_grad=True)
    y = (a * a).sum()
    a.array[0] = 5  # like a kernel
    a.changed()
    with pytest.raises(InPlaceError):
        y.backward()


def test_arrays_that_are_watched_are_not_kept_alive() -> None:
    a = Tensor([1.0, 2.0], requires_grad=True)
    h = a * 2
    y = (h + 1).sum()
    with mg.no_grad():
        shared = h.detach()
    alive = weakref.ref(shared.data)
    y.backward()
    del h, shared
    gc.collect()
    assert alive() is None and y.item() == 8


@pytest.mark.parametrize("arange", [np.arange, mg.arange], ids=["NumPy", "the engine"])
def test_many_views(arange: Any) -> None:
    x = Tensor(arange(400.0), requires_grad=True)
    y = (x * x).sum()
    rows = [x.detach()[i : i + 2].numpy() for i in range(300)]
    assert len(x.version.watched or {}) < 100
    rows[299][1] = -1
    with pytest.raises(InPlaceError):
        y.backward()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.bool_, np.int8])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (0, 3), (100, 100), (257, 3, 65)])
def test_checksums_see_single_elements(dtype: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    array = np.asarray(rng.random(shape) * 100).astype(dtype)
    before = checksum(array)
    assert checksum(array.copy()) == before
    if not array.size:
        return
    for _ in range(20):
        changed = np.array(array)
        index = tuple(rng.integers(n) for n in shape)
        changed[index] = ~changed[index] if dtype is np.bool_ else changed[index] + 1
        assert checksum(changed) != before


def test_checksums_see_another_order() -> None:
    rng = np.random.default_rng(0)
    for columns in (3, 64, 257, 512, 1000):
        array = rng.random((300, columns)).astype(np.float32)
        before = checksum(array)
        for other in (array[::-1], array[:, ::-1], np.roll(array, 1, 0), rng.permutation(array)):
            assert checksum(other) != before
        swapped = array.copy()
        swapped[[3, 200]] = swapped[[200, 3]]
        assert checksum(swapped) != before
    assert checksum(array.T) == checksum(np.ascontiguousarray(array.T))
