"""The stand-in for CuPy is strict where CuPy or a GPU would silently be wrong."""

from typing import Any

import numpy as np
import pytest

from minigrad.kernels.cuda import KERNELS, adamw, dropout, orders
from minigrad.ops import TEXTBOOK
from tests.gpu.sources import SOURCES
from tests.gpu.stand_in import CaptureError
from tests.gpu.stand_in.names import LINALG, NAMES


def test_every_function_exists_in_cupy() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    missing = [name for name in sorted(NAMES) if not hasattr(cupy, name)]
    missing += [name for name in sorted(LINALG) if not hasattr(cupy.linalg, name)]
    assert missing == []


def test_unknown_functions_are_errors(gpu: Any) -> None:
    with pytest.raises(AttributeError, match="no 'erf'"):
        gpu.erf(gpu.zeros(2))


@pytest.mark.parametrize(
    "mix",
    [
        lambda gpu, x, host: x + host,
        lambda gpu, x, host: host + x,
        lambda gpu, x, host: gpu.matmul(x, host),
        lambda gpu, x, host: gpu.concatenate([x, host]),
        lambda gpu, x, host: np.add(x, host, out=host),
        lambda gpu, x, host: x.__setitem__(..., host),
        lambda gpu, x, host: np.asarray(x),
        lambda gpu, x, host: host.__setitem__(..., x),
    ],
)
def test_host_and_device_arrays_do_not_mix(gpu: Any, mix: Any) -> None:
    with pytest.raises(TypeError, match=r"Unsupported type|Implicit conversion|device array"):
        mix(gpu, gpu.zeros(3), np.zeros(3))


def test_transfers_and_launches_are_counted(gpu: Any) -> None:
    x = gpu.asarray(np.arange(6.0))
    y = (x * 2).reshape(2, 3)[0] + 1
    assert (gpu.counts["h2d"], gpu.counts["d2h"], gpu.counts["launches"]) == (1, 0, 2)
    assert float(y.sum()) == 9
    x[np.array([0, 1])]
    assert (gpu.counts["h2d"], gpu.counts["d2h"], gpu.counts["launches"]) == (2, 1, 4)


def test_reductions_stay_on_the_device(gpu: Any) -> None:
    total = gpu.ones((2, 3), np.float32).sum()
    assert isinstance(total, gpu.ndarray) and total.shape == ()
    assert gpu.counts["d2h"] == 0


def test_views_share_memory_and_say_so(gpu: Any) -> None:
    x = gpu.zeros((2, 3))
    x.T[1][...] = 5
    np.testing.assert_array_equal(x.get(), [[0, 5, 0], [0, 5, 0]])
    assert x.base is None and x.T.reshape(6)[2:].base is not None
    assert gpu.may_share_memory(x, x[1:]) and not gpu.may_share_memory(x, x.copy())


def test_fresh_memory_is_poison(gpu: Any) -> None:
    assert np.isnan(gpu.empty((3, 2)).get()).all()
    assert gpu.empty(2, np.int32).get().tolist() == [-1, -1]


def test_assigning_twice_to_one_place_is_refused(gpu: Any) -> None:
    x = gpu.zeros(4)
    x[np.array([2, 0])] = gpu.ones(2)
    assert x.get().tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="undefined"):
        x[np.array([1, 1])] = gpu.ones(2)
    gpu.add.at(x, np.array([1, 1]), gpu.ones(2))
    assert x.get().tolist() == [1, 2, 1, 0]


def test_raw_kernels_take_typed_arguments_on_the_device(gpu: Any) -> None:
    activations = next(s for s in SOURCES if s.file == "activations")
    x = gpu.zeros(8, np.float32)
    activations.launch("relu_forward<float>", (1,), (32,), x, x, np.uint64(8))
    for wrong in ((np.zeros(8, np.float32), x, np.uint64(8)), (x, x, 8), (x, x, np.int64(8))):
        with pytest.raises((TypeError, RuntimeError), match=r"relu_forward<float>|Unsupported"):
            activations.launch("relu_forward<float>", (1,), (32,), *wrong)
    with pytest.raises(KeyError, match="not among"):
        activations.launch("relu_forward<half>", (1,), (32,), x, x, np.uint64(8))
    launches = gpu.counts["launches"]
    activations.launch("relu_forward<float>", (0,), (32,), x, x, np.uint64(8))
    assert gpu.counts["launches"] == launches


def test_a_capturing_stream_executes_nothing_and_refuses_what_cupy_refuses(gpu: Any) -> None:
    stream, x = gpu.cuda.Stream(non_blocking=True), gpu.ones(3)
    with stream, gpu.cuda.using_allocator(gpu.cuda.MemoryPool().malloc):
        stream.begin_capture()
        x += 1
        y = x * 10
        for refused in (x.get, x.sum().item, lambda: gpu.asarray(np.ones(2)), lambda: x @ x):
            with pytest.raises(CaptureError):
                refused()
        with pytest.raises(CaptureError, match="already"):
            stream.begin_capture()
        graph = stream.end_capture()
    assert x.get().tolist() == [1, 1, 1] and np.isnan(y.get()).all()
    graph.launch()
    graph.launch()
    assert x.get().tolist() == [3, 3, 3] and y.get().tolist() == [30, 30, 30]
    with pytest.raises(CaptureError, match="not capturing"):
        stream.end_capture()


def test_the_memory_of_a_graph_is_its_own(gpu: Any) -> None:
    stream, pool, x = gpu.cuda.Stream(non_blocking=True), gpu.cuda.MemoryPool(), gpu.ones(3)
    with pytest.raises(CaptureError, match="non-blocking"):
        stream.begin_capture()  # it is not the current stream
    with stream:
        stream.begin_capture()
        with pytest.raises(CaptureError, match="pool of its own"):
            x + 1
        with pytest.raises(CaptureError, match="waited for"):
            stream.synchronize()
        stream.end_capture()
        with gpu.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            x + 1
            stream.end_capture()
    with gpu.cuda.using_allocator(pool.malloc), pytest.raises(CaptureError, match="overwritten"):
        gpu.empty(3)


def layer(x: Any, w: Any, ids: Any, step: Any, state: tuple[Any, ...]) -> Any:
    """Each kernel once, with its gradient and an update, as in a training step."""
    qkv, saved_qkv = KERNELS[TEXTBOOK["linear"]].forward(x, w, None)
    y, saved_y = KERNELS[TEXTBOOK["multi_head_attention"]].forward(qkv, num_heads=2, causal=True)
    keep = dropout.keep_mask(y.shape, 0.25, seed=3, step=step)
    z, saved_z = KERNELS[TEXTBOOK["dropout"]].forward(y, keep, p=0.25)
    n, saved_n = KERNELS[TEXTBOOK["add_layer_norm"]].forward(z, x, None, None, eps=1e-5)
    loss, saved = KERNELS[TEXTBOOK["cross_entropy"]].forward(n, ids)
    one = state[4]
    dn, _ = KERNELS[TEXTBOOK["cross_entropy"]].backward(one, saved, (True, False))
    dz, *_ = KERNELS[TEXTBOOK["add_layer_norm"]].backward(
        dn, saved_n, (True, True, False, False), eps=1e-5
    )
    dy, _ = KERNELS[TEXTBOOK["dropout"]].backward(dz, saved_z, (True, False), p=0.25)
    (dqkv,) = KERNELS[TEXTBOOK["multi_head_attention"]].backward(
        dy, saved_y, (True,), num_heads=2, causal=True
    )
    _, dw, _ = KERNELS[TEXTBOOK["linear"]].backward(dqkv, saved_qkv, (False, True, False))
    p, m, v, told = state[:4]
    orders.order_step(dw, loss, told, max_norm=1.0, windows=1)
    made, scale, _, number, lr = told.orders
    adamw.adamw_step_captured(
        *(p, dw, m, v),
        **{"lr": lr, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1},
        **{"step": number, "grad_scale": scale, "made": made},
    )
    return loss


LAUNCHES = 13  # of `layer`: one for each kernel


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_can_be_captured_and_replayed(
    gpu: Any, rng: np.random.Generator, dtype: Any
) -> None:
    """No kernel waits for the host, allocates sizes that depend on values, or fixes a value."""
    batches = rng.standard_normal((3, 2, 7, 8)).astype(dtype)
    weight = rng.standard_normal((24, 8)).astype(dtype)
    ids = rng.integers(0, 8, (3, 2, 7))

    def new() -> tuple[Any, ...]:
        w = gpu.asarray(weight)
        told = orders.StepState(1, 3, ring=1)
        told.rates[...] = 0.1
        state = (w, gpu.zeros(w.shape, dtype), gpu.zeros(w.shape, dtype), told, gpu.ones((), dtype))
        x, targets = gpu.zeros((2, 7, 8), dtype), gpu.zeros((2, 7), np.int64)
        return x, w, targets, gpu.zeros(1, np.uint32), state

    def run(step: Any) -> list[bytes]:
        results = []
        for i in range(3):
            x, w, targets, number, _ = inputs
            x[...], targets[...] = gpu.asarray(batches[i]), gpu.asarray(ids[i])
            number += np.uint32(1)
            loss = step()
            results.append(loss.get().tobytes() + w.get().tobytes())
        return results

    inputs = new()
    eager = run(lambda: layer(*inputs))

    inputs = new()
    stream = gpu.cuda.Stream(non_blocking=True)
    with stream:
        layer(*new())  # allocates the counters of this stream
        stream.synchronize()
    before = gpu.counts["launches"]
    with stream, gpu.cuda.using_allocator(gpu.cuda.MemoryPool().malloc):
        stream.begin_capture()
        loss = layer(*inputs)
        graph = stream.end_capture()
    assert gpu.counts["launches"] - before == LAUNCHES

    def replay() -> Any:
        graph.launch()
        return loss

    assert run(replay) == eager
    assert len(set(eager)) == 3
