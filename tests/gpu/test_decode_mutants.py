"""Faults are put into the kernels of generation; the checks must then fail."""

from typing import Any

import numpy as np
import pytest

from tests.gpu.test_decode_kernels import NOBODY, Attention, check_step, rows_on
from tests.gpu.test_draw_kernel import ROUNDS, check
from tests.gpu.test_mutants import Mutant, assert_found
from tests.gpu.twins import assert_close
from tinyalpaca.generation.cuda import decode


def step(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    for rotary in (0, 1):
        slots, places = [2, 0, 1], [299, NOBODY, 40]
        twin = Attention(rng, slots, places, heads=2, size=20, room=300, rotary=rotary)
        check_step(gpu, twin, np.float32)


def embedding(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    tokens, positions = (rng.standard_normal((5, 300)).astype(np.float32) for _ in range(2))
    x = gpu.empty((2, 300), np.float32)
    rows = rows_on(gpu, [4, NOBODY], [0, 1], [3, 4])
    decode.embed(gpu.asarray(tokens), gpu.asarray(positions), rows, x)
    np.testing.assert_array_equal(x.get(), [tokens[3] + positions[4], np.zeros(300)])


def product(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    """The width is not a multiple of a warp, there are more rows than in a block, nine outputs."""
    x, more = rng.standard_normal((10, 33)) * 2, rng.standard_normal((10, 70))
    weight, bias, residual = (rng.standard_normal(s) for s in ((9, 103), 9, (10, 9)))
    normal = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 0.1)
    wanted = np.maximum(np.concatenate([normal, more], axis=1) @ weight.T + bias, 0)
    for added in (residual, None):
        arrays = (x, weight, bias, more, added)
        given = [None if a is None else gpu.asarray(a.astype(np.float32)) for a in arrays]
        y = gpu.empty((10, 9), np.float32)
        options = {"more": given[3], "residual": given[4], "eps": 0.1, "activation": "relu"}
        decode.linear(*given[:3], y, **options)
        assert_close(y, wanted + (0 if added is None else added), "product")


def drawing(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    logits = rng.standard_normal((4, 700)).astype(np.float32)
    logits[:, [10, 20]] = logits[0, 0] = 9
    for temperature in (0.0, 1.0):
        check(gpu, logits, rng.random((ROUNDS, 4)), temperature)


ATTEND, EMBED, DRAW = "decode_attend<float>", "decode_embed<float>", "draw_tokens<float>"
LINEAR = "decode_linear<float, 8>"

# fmt: off
MUTANTS = {
    "a key is looked at before it is kept": Mutant(
        "decode", "__syncthreads();  // what one thread kept", "//", ATTEND, step),
    "a position does not see itself": Mutant(
        "decode", "t <= h.place; t += groups", "t < h.place; t += groups", ATTEND, step),
    "the parts of the values are added too early": Mutant(
        "decode", "shared.partial[threadIdx.x] = part;\n    __syncthreads();",
        "shared.partial[threadIdx.x] = part;", ATTEND, step),
    "one part of the values is left out": Mutant(
        "decode", "other < groups; other++)\n        total += shared",
        "other < groups - 1; other++)\n        total += shared", ATTEND, step),
    "a key turns the other way": Mutant(
        "decode", "= k * cosine - h.k[d + 1] * sine", "= k * cosine + h.k[d + 1] * sine", ATTEND,
        step),
    "keys go to the row's own slot": Mutant(
        "decode", "size_t(slots[row]) * heads", "size_t(row) * heads", ATTEND, step),
    "nobody's row gets what was there": Mutant(
        "decode", "d += blockDim.x) mixed[d] = 0;", "d += blockDim.x) {}", ATTEND, step),
    "nobody's row is embedded": Mutant("decode", "if (place >= 0) {", "{", EMBED, embedding),
    "one channel too many": Mutant(
        "decode", "if (c >= channels) return;", "if (c > channels) return;", EMBED, embedding),
    "the norm is that of another row": Mutant(
        "decode", "squares[r] += value * value;", "squares[ROWS - 1 - r] += value * value;", LINEAR,
        product),
    "one row too many": Mutant(
        "decode", "|| row >= rows) return;", "|| row > rows) return;", LINEAR, product),
    "one output too many": Mutant(
        "decode", "if (output >= outputs) return;", "if (output > outputs) return;", LINEAR,
        product),
    "sums of rows change places": Mutant(
        "decode", "const real given = upper ? x[i]", "const real given = !upper ? x[i]", LINEAR,
        product),
    "the first token is never the highest": Mutant(
        "draw", "v >= 0; v -=", "v > 0; v -=", DRAW, drawing),
    "sums of warps are read too early": Mutant(
        "draw", "shared.warps[warp] = through;\n  __syncthreads();",
        "shared.warps[warp] = through;", DRAW, drawing),
    "sums of chunks are read too early": Mutant(
        "draw", "= base + through;\n  __syncthreads();", "= base + through;", DRAW, drawing),
    "one lane is left out of the sums": Mutant(
        "draw", "if (lane >= distance) through", "if (lane > distance) through", DRAW, drawing),
    "the chosen token is read too early": Mutant(
        "draw", "    shared.token = token;\n  }\n  __syncthreads();",
        "    shared.token = token;\n  }", DRAW, drawing),
    "every round draws with the first number": Mutant(
        "draw", "taken[row] % rounds", "0", DRAW, drawing),
}
# fmt: on


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_is_found(gpu: Any, libraries: Any, monkeypatch: Any, name: str) -> None:
    assert_found(MUTANTS[name], gpu, libraries, monkeypatch)
