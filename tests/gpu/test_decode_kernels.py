"""Compares the kernels of generation, run through the CPU shim, with the same in NumPy."""

from typing import Any

import numpy as np
import pytest

from minigrad.ops import TEXTBOOK
from tests.gpu.twins import PRECISIONS, SCHEDULES, assert_close
from tinyalpaca.generation.cuda import decode

NOBODY = -1


def normalised(x: np.ndarray, eps: float | None) -> np.ndarray:
    if eps is None:
        return x
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)


def activated(x: np.ndarray, activation: str) -> np.ndarray:
    if activation == "none":
        return x
    if activation.startswith("gelu"):
        how = "tanh" if activation == "gelu_tanh" else "none"
        return TEXTBOOK["gelu"].forward(np, x, approximate=how)[0]
    return TEXTBOOK[activation].forward(np, x)[0]


def turned(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """x (..., D) as D/2 complex numbers, rotated by angles (D/2,)."""
    pairs = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


class Attention:
    """Inputs of attention in float64, and the cache as NumPy arrays."""

    def __init__(
        self, rng: np.random.Generator, slots: list[int], places: list[int], **sizes: int
    ) -> None:
        heads, size, room = sizes["heads"], sizes["size"], sizes["room"]
        self.slots, self.places = slots, places
        batch = max(slots) + 1
        self.keys = rng.standard_normal((batch, heads, size, room))
        self.values = rng.standard_normal((batch, heads, room, size))
        self.qkv = rng.standard_normal((len(slots), 3, heads, size)) / size**0.25
        self.angles = None
        if sizes.get("rotary"):
            self.angles = rng.standard_normal((room, size // 2)) * 3

    def append(self) -> None:
        for row, (slot, place) in enumerate(zip(self.slots, self.places, strict=True)):
            if place == NOBODY:
                continue
            if self.angles is not None:
                self.qkv[row, :2] = turned(self.qkv[row, :2], self.angles[place])
            self.keys[slot, :, :, place] = self.qkv[row, 1]
            self.values[slot, :, place] = self.qkv[row, 2]

    def attend(self) -> np.ndarray:
        """The output, (N, H·D)."""
        out = np.zeros((len(self.slots), *self.qkv.shape[2:]))
        for row, (slot, place) in enumerate(zip(self.slots, self.places, strict=True)):
            for head, q in enumerate(self.qkv[row, 0]):
                if place != NOBODY:
                    scores = q @ self.keys[slot, head, :, : place + 1]
                    weights = np.exp(scores - scores.max())
                    out[row, head] = weights @ self.values[slot, head, : place + 1] / weights.sum()
        return out.reshape(len(out), -1)

    def on(self, gpu: Any, dtype: Any) -> tuple[Any, decode.Cache, decode.Rows]:
        """qkv (N, 3HD), cache and rows on the device."""

        def put(array: np.ndarray) -> Any:
            return gpu.asarray(np.ascontiguousarray(array.astype(dtype)))

        rotation = None
        if self.angles is not None:
            pairs = np.stack([np.cos(self.angles), np.sin(self.angles)], axis=-1)
            rotation = put(pairs.reshape(len(pairs), -1))
        qkv = put(self.qkv.reshape(len(self.qkv), -1))
        cache = decode.Cache(put(self.keys), put(self.values), rotation)
        return qkv, cache, rows_on(gpu, self.places, self.slots)


def rows_on(gpu: Any, places: list[int], slots: list[int], ids: Any = None) -> decode.Rows:
    ids = [0] * len(places) if ids is None else ids
    return decode.Rows(*(gpu.asarray(np.array(a, np.int32)) for a in (ids, places, slots)))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("channels", [1, 33, 300])
@pytest.mark.parametrize("learned", [True, False])
def test_embed(
    gpu: Any, rng: np.random.Generator, channels: int, learned: bool, dtype: Any
) -> None:
    tokens = rng.standard_normal((9, channels)).astype(dtype)
    positions = rng.standard_normal((5, channels)).astype(dtype)
    ids, places = [8, 0, 3, 2], [4, 0, NOBODY, 2]
    x = gpu.empty((4, channels), dtype)
    given = gpu.asarray(positions) if learned else None
    decode.embed(gpu.asarray(tokens), given, rows_on(gpu, places, places, ids), x)
    wanted = tokens[ids] + (positions[places] if learned else 0)
    wanted[2] = 0
    np.testing.assert_array_equal(x.get(), wanted)


def test_an_id_outside_of_the_table_is_nan(gpu: Any) -> None:
    x = gpu.empty((3, 2))
    decode.embed(gpu.ones((4, 2)), None, rows_on(gpu, [0] * 3, [0] * 3, [3, 4, -1]), x)
    np.testing.assert_array_equal(np.isnan(x.get()), [[False] * 2, [True] * 2, [True] * 2])


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("rows", [1, 2, 8, 9, 17])
@pytest.mark.parametrize(
    ("width", "more_width", "outputs"),
    [(64, 0, 192), (64, 64, 64), (0, 40, 24), (33, 7, 5), (1, 1, 1), (24, 129, 65)],
)
def test_linear(
    gpu: Any,
    rng: np.random.Generator,
    rows: int,
    width: int,
    more_width: int,
    outputs: int,
    dtype: Any,
) -> None:
    x = rng.standard_normal((rows, width)) * 3 if width else None
    more = rng.standard_normal((rows, more_width)) if more_width else None
    weight, bias = rng.standard_normal((outputs, width + more_width)), rng.standard_normal(outputs)
    residual = rng.standard_normal((rows, outputs))
    for eps, added in ((None, None), (1e-5, residual), (0.3, None)):
        if eps is not None and not width:
            continue
        inputs = [a if a is None else a.astype(dtype) for a in (x, more, weight, bias, added)]
        given = [a if a is None else gpu.asarray(a) for a in inputs]
        y = gpu.empty((rows, outputs), dtype)
        decode.linear(given[0], *given[2:4], y, more=given[1], residual=given[4], eps=eps)
        wide = [normalised(inputs[0].astype(float), eps)] if width else []
        wide += [inputs[1].astype(float)] if more_width else []
        wanted = np.concatenate(wide, axis=1) @ inputs[2].T.astype(float) + inputs[3]
        assert_close(y, wanted + (0 if added is None else inputs[4]), f"linear, eps {eps}")


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("activation", decode.ACTIVATIONS)
def test_activations_of_linear(
    gpu: Any, rng: np.random.Generator, activation: str, dtype: Any
) -> None:
    """Also far from zero, where e^-z overflows."""
    x = np.concatenate([rng.standard_normal((1, 200)) * 3, [[0.0, -200.0, 200.0, -1e4]]], axis=1)
    x = x.astype(dtype).T.copy()  # (N, 1)
    y = gpu.empty(x.shape, dtype)
    one, zero = gpu.asarray(np.ones((1, 1), dtype)), gpu.zeros(1, dtype)
    decode.linear(gpu.asarray(x), one, zero, y, activation=activation)
    with np.errstate(over="ignore"):
        assert_close(y, activated(x.astype(float), activation), activation)


def test_a_row_does_not_depend_on_the_others(gpu: Any, rng: np.random.Generator) -> None:
    """Results are bitwise identical for one row at a time and for many."""
    x, more, weight = (
        rng.standard_normal(s).astype(np.float32) for s in ((9, 70), (9, 40), (30, 110))
    )
    bias = np.zeros(30, np.float32)

    def run(rows: slice) -> np.ndarray:
        given = [gpu.asarray(a) for a in (x[rows], weight, bias, more[rows])]
        y = gpu.empty((len(given[0]), 30), np.float32)
        decode.linear(*given[:3], y, more=given[3], eps=1e-5)
        return y.get()

    together = run(slice(None))
    for i in range(9):
        np.testing.assert_array_equal(run(slice(i, i + 1))[0], together[i])


SIZES = [
    {"heads": 1, "size": 1, "room": 1},
    {"heads": 3, "size": 8, "room": 11},
    {"heads": 2, "size": 33, "room": 300},
    {"heads": 1, "size": 300, "room": 20},
    {"heads": 2, "size": 16, "room": 128, "rotary": 1},
    {"heads": 1, "size": 2, "room": 7, "rotary": 1},
    {"heads": 1, "size": 600, "room": 3, "rotary": 1},
]


def check_step(gpu: Any, twin: Attention, dtype: Any) -> None:
    """Check the output of `attend` with `append`, and the cache after it."""
    qkv, cache, rows = twin.on(gpu, dtype)
    heads, room = twin.qkv.shape[2], twin.keys.shape[-1]
    out = gpu.empty((len(twin.slots), heads * twin.qkv.shape[3]), dtype)
    scores = gpu.empty((len(twin.slots), heads, room), dtype)
    decode.attend(qkv, cache, rows, scores, out, append=True)
    twin.append()
    assert_close(out, twin.attend(), "mixed values")
    assert_close(cache.keys, twin.keys, "keys")
    assert_close(cache.values, twin.values, "values")


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "-".join(map(str, sizes.values())))
def test_attend(gpu: Any, rng: np.random.Generator, sizes: dict[str, int], dtype: Any) -> None:
    """Slots in any order, with any lengths, and unused rows."""
    last = sizes["room"] - 1
    twin = Attention(rng, [2, 0, 1, 3], [last, 0, NOBODY, last // 2], **sizes)
    check_step(gpu, twin, dtype)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_attend_under_every_schedule(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    gpu.engine.schedule = schedule
    for rotary in (0, 1):
        twin = Attention(rng, [1, 0], [269, 40], heads=2, size=20, room=270, rotary=rotary)
        check_step(gpu, twin, np.float32)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_scores_far_from_zero(gpu: Any, rng: np.random.Generator, shift: float) -> None:
    twin = Attention(rng, [0], [9], heads=1, size=4, room=10)
    twin.keys[..., 0, :], twin.qkv[:, 1, :, 0], twin.qkv[:, 0, :, 0] = shift, shift, 1
    check_step(gpu, twin, np.float64)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("rotary", [0, 1])
def test_a_prompt_is_kept_before_it_is_looked_at(
    gpu: Any, rng: np.random.Generator, rotary: int, dtype: Any
) -> None:
    """Rows are positions of two sequences. All append; then each attends to those up to its own."""
    slots, places = [1] * 5 + [0] * 3 + [0], [*range(5), *range(3), NOBODY]
    twin = Attention(rng, slots, places, heads=2, size=6, room=6, rotary=rotary)
    qkv, cache, rows = twin.on(gpu, dtype)
    decode.append(qkv, cache, rows)
    out, scores = gpu.empty((9, 12), dtype), gpu.empty((9, 2, 6), dtype)
    decode.attend(qkv, cache, rows, scores, out, append=False)
    twin.append()
    assert_close(cache.keys, twin.keys, "keys")
    assert_close(cache.values, twin.values, "values")
    assert_close(out, twin.attend(), "mixed values")
