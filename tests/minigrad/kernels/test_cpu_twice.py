"""Calls each kernel twice, on different inputs, while the first results are in use.

A kernel must return memory that nothing else uses. If it returned or saved memory of a workspace,
that would not show when it is called once, or twice on the same numbers, because the second call
writes the same numbers. So here a second call on *other* numbers of the same shape comes between
the first forward and its backward, and all results are checked at the end. The sizes reach every
branch of the kernels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minigrad.kernels.cpu import KERNELS, attention, linear
from minigrad.kernels.cpu.layout import CROWDED
from minigrad.ops import TEXTBOOK
from tests.minigrad.kernels.twins import assert_close, layouts

N, W = linear.NARROW, 2 * linear.NARROW  # the largest narrow weight, and a wide one
LONG = 3 * attention.BLOCK + 5  # several blocks of queries
GAP = CROWDED // 4  # float32 positions from which on rows are followed by a gap

Draw = Callable[..., np.ndarray]  # shape, scale -> numbers


def _qkv(draw: Draw, *shapes: tuple[int, ...], scale: float = 1.0) -> list[np.ndarray]:
    return [draw(*shape, scale=scale) for shape in shapes]


def _ids(draw: Draw, shape: tuple[int, ...], size: int, lowest: int = 0) -> np.ndarray:
    return np.floor(np.abs(draw(*shape)) * 1000).astype(np.int64) % (size - lowest) + lowest


def _logits(draw: Draw, shape: tuple[int, ...], scale: float = 1.0, ignored: int = 0) -> Any:
    targets = _ids(draw, shape[:-1], shape[-1])
    targets.reshape(-1)[:ignored] = -100
    return draw(*shape, scale=scale), targets


Q, K = (2, 3, 40, 8), (2, 3, LONG, 8)
INPUTS: dict[str, tuple[str, Callable[[Draw], Any], dict[str, Any]]] = {}


def use(name: str, label: str, inputs: Callable[[Draw], Any], **statics: Any) -> None:
    """Add a case for the kernel `name`: `inputs` draws its arrays."""
    INPUTS[f"{name}: {label}"] = name, inputs, statics


for activation in (None, "relu"):
    for c_in, c_out in ((W, N), (W, 1), (N, N), (W, W), (N, W), (N + 1, N), (W, N + 1)):
        use(
            "linear",
            f"{c_in} to {c_out}, {activation}",
            lambda draw, a=c_in, b=c_out: (draw(3, 7, a), draw(b, a), draw(b)),
            activation=activation,
        )
    use(
        "linear",
        f"no bias, {activation}",
        lambda d: (d(5, W), d(N, W), None),
        activation=activation,
    )
    use(
        "linear", f"gaps, {activation}", lambda d: (d(GAP, 9), d(8, 9), d(8)), activation=activation
    )
for label, vectors in (
    ("weight and bias", lambda d: (d(12), d(12))),
    ("weight", lambda d: (d(12), None)),
    ("bias", lambda d: (None, d(12))),
    ("neither", lambda d: (None, None)),
):
    use("layer_norm", label, lambda d, v=vectors: (d(2, 70, 12), *v(d)), eps=1e-5)
    use(
        "add_layer_norm",
        label,
        lambda d, v=vectors: (*_qkv(d, (2, 9, 12), (2, 9, 12)), *v(d)),
        eps=1e-5,
    )
    if label in ("weight", "neither"):
        use("rms_norm", label, lambda d, v=vectors: (d(2, 70, 12), v(d)[0]), eps=1e-5)
use("layer_norm", "gaps", lambda d: (d(GAP, 12), d(12), d(12)), eps=1e-5)
use("layer_norm", "far from 0", lambda d: (d(2, 70, 12) + 1000, d(12), d(12)), eps=1e-5)
for causal in (False, True):
    for scale in (1.0, 100.0):  # with 100, sums of e^x are outside of the safe range
        heads = lambda d, s=scale: _qkv(d, Q, K, (2, 3, LONG, 5), scale=s)  # noqa: E731
        flat = lambda d, s=scale: _qkv(d, (LONG, 4), (LONG, 4), (LONG, 4), scale=s)  # noqa: E731
        packed = lambda d, s=scale: _qkv(d, (2, LONG, 3 * 24), scale=s)  # noqa: E731
        how = f"{'causal' if causal else 'full'}, scores of {scale}"
        use("scaled_dot_product_attention", f"{how}, fewer queries", heads, causal=causal)
        use("scaled_dot_product_attention", f"{how}, no heads", flat, causal=causal, scale=0.3)
        use("multi_head_attention", f"{how}, 3 heads", packed, num_heads=3, causal=causal)
        for kv in (1, 2):
            options = {"num_heads": 4, "num_kv_heads": kv, "causal": causal}
            some = lambda d, s=scale, k=kv: _qkv(d, (2, LONG, 8 * (4 + 2 * k)), scale=s)  # noqa: E731
            use("grouped_query_attention", f"{how}, 4 heads on {kv}", some, **options)
        use("multi_head_attention", f"{how}, 1 head", packed, num_heads=1, causal=causal)
    gaps = lambda d: _qkv(d, (1, GAP, 3 * 8))  # noqa: E731
    use("multi_head_attention", f"{causal}, gaps", gaps, num_heads=2, causal=causal)
for reduction in ("mean", "sum", "none"):
    for smoothing in (0.0, 0.1):
        options = {"reduction": reduction, "label_smoothing": smoothing}
        for scale in (1.0, 100.0):
            how = f"{reduction}, smoothing {smoothing}, logits of {scale}"
            use("cross_entropy", how, lambda d, s=scale: _logits(d, (2, 30, 9), s), **options)
            ignoring = lambda d, s=scale: _logits(d, (2, 30, 9), s, ignored=7)  # noqa: E731
            use("cross_entropy", f"{how}, some ignored", ignoring, **options)
for name in ("sigmoid", "silu", "tanh"):
    use(name, "a slice", lambda d: (d(5, 12),))
    use(name, "slices", lambda d: (d(3, 20_000),))
use("swiglu", "a slice", lambda d: (d(5, 12),))
use("swiglu", "slices", lambda d: (d(3, 40_000),))
use("rotary", "all", lambda d: (d(2, 5, 7, 6), d(5, 1, 3), d(5, 1, 3)))
use("rotary", "some heads", lambda d: (d(2, 5, 7, 6), d(5, 1, 3), d(5, 1, 3)), heads=4)
for form in ("none", "tanh"):
    use("gelu", f"{form}, a slice", lambda d: (d(5, 12),), approximate=form)
    use("gelu", f"{form}, slices", lambda d: (d(3, 20_000),), approximate=form)
use("embedding", "repeated ids", lambda d: (d(11, 6), _ids(d, (5, 20), 11)))
use("embedding", "negative ids", lambda d: (d(11, 6), _ids(d, (5, 20), 11, -11)))
use("embedding", "no ids", lambda d: (d(11, 6), np.zeros((0, 3), np.int64)))


def _needs(name: str, arrays: tuple[np.ndarray | None, ...]) -> tuple[bool, ...]:
    if name == "rotary":
        return (True, False, False)  # angles are constants
    return tuple(a is not None and a.dtype.kind == "f" for a in arrays)


def _drawn(label: str, seed: int, dtype: Any, layout: str) -> tuple[np.ndarray | None, ...]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
        return layouts((rng.standard_normal(shape) * scale).astype(dtype))[layout]

    return tuple(INPUTS[label][1](draw))


@pytest.mark.parametrize("layout", ["contiguous", "feature-major"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("label", INPUTS)
def test_first_results_survive_a_second_call_on_other_inputs(label, dtype, layout):
    name, _, statics = INPUTS[label]
    kernel, textbook = KERNELS[TEXTBOOK[name]], TEXTBOOK[name]
    runs = []
    for seed in (0, 1):
        arrays = _drawn(label, seed, dtype, layout)
        y, saved = kernel.forward(*arrays, **statics)
        runs.append({"arrays": arrays, "y": y, "saved": saved})
    needs = _needs(name, arrays)
    for seed, run in enumerate(runs):
        y = np.asarray(run["y"])
        run["dy"] = np.random.default_rng(9 + seed).standard_normal(y.shape).astype(y.dtype)
        run["gradients"] = kernel.backward(run["dy"], run["saved"], needs, **statics)
        if hasattr(kernel, "infer"):
            run["inferred"] = kernel.infer(*run["arrays"], **statics)
    # A score S has a rounding error of S·eps, which becomes a relative error of e^S.
    condition = 1e4 if "of 100.0" in label else 1e2 if "far" in label else 2.0
    for run in runs:
        wanted, saved = textbook.forward(np, *run["arrays"], **statics)
        assert_close(np.asarray(run["y"]), np.asarray(wanted), f"{label} forward", 1, condition)
        if hasattr(kernel, "infer"):
            np.testing.assert_array_equal(run["inferred"], run["y"])
        wanted = textbook.backward(np, run["dy"], saved, needs, **statics)
        for i, (got, want) in enumerate(zip(run["gradients"], wanted, strict=True)):
            if needs[i]:
                assert_close(got, want, f"{label} gradient {i}", 1, condition)


@pytest.mark.parametrize("label", INPUTS)
def test_no_two_results_share_memory(label):
    """Results share no memory with each other, with those of the next call, or with the inputs.

    (`add_layer_norm` returns one gradient for both of its inputs; the engine allows for that.)
    """
    name, _, statics = INPUTS[label]
    kernel = KERNELS[TEXTBOOK[name]]
    held: list[tuple[str, np.ndarray]] = []
    for seed in (0, 1):
        arrays = _drawn(label, seed, np.float32, "feature-major")
        needs = _needs(name, arrays)
        y, saved = kernel.forward(*arrays, **statics)
        y = np.asarray(y)
        gradients = kernel.backward(np.ones_like(y), saved, needs, **statics)
        if name == "add_layer_norm":
            assert gradients[0] is gradients[1]
            gradients = gradients[1:]
        found = [(f"input {i}", a) for i, a in enumerate(arrays)]
        found += [(f"gradient {i}", g) for i, g in enumerate(gradients)]
        if hasattr(kernel, "infer"):
            found.append(("inferred", kernel.infer(*arrays, **statics)))
        held += [
            (f"call {seed}: {what}", a) for what, a in [("output", y), *found] if a is not None
        ]
    for i, (what, a) in enumerate(held):
        for other, b in held[i + 1 :]:
            assert not np.may_share_memory(a, b), f"{what} and {other}"
