"""Faults are put into our own kernels, one at a time; the checks must then fail.

A mutant changes one line. It is found if, with one of the thread orders, a result is wrong, memory
beside an array was written, or the kernel broke a rule of the shim.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from minigrad.kernels.cuda import KERNELS, dropout, gemm, orders
from minigrad.kernels.cuda import compile as compiler
from minigrad.kernels.cuda.columns import masked_column_sums
from minigrad.ops import TEXTBOOK
from tests.gpu.shim.build import LaunchError, Library
from tests.gpu.sources import source
from tests.gpu.twins import ROUNDED_TOLERANCE, SCHEDULES, assert_close, check_twin

F32 = np.float32


class Mutant(NamedTuple):
    """A fault: the file, the text that is replaced and by what, kernels to compile, and a check."""

    file: str
    before: str
    after: str
    kernels: str
    check: Callable[[Any, np.random.Generator, int], None]


def sums(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    a, b = rng.standard_normal((2, 300, 37)).astype(F32)
    for _ in range(2):  # the second call uses the counters that the first one has left
        masked, got = masked_column_sums(gpu.asarray(a), gpu.asarray(b))
        assert_close(got, (a.astype(float) * (b > 0)).sum(0), "sums")
        np.testing.assert_array_equal(masked.get(), a * (b > 0))


def long_norm(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    x, (w, b) = rng.standard_normal((300, 37)), rng.standard_normal((2, 37))
    check_twin(gpu, "layer_norm", [x, w, b], F32, schedule, eps=1e-5)
    # A random order starts at any block. With few blocks that is often one of the sums.
    check_twin(gpu, "layer_norm", [x, w, b], F32, schedule, (False, True, True), eps=1e-5)


def norm(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    check_twin(gpu, "layer_norm", [rng.standard_normal((9, 65)), None, None], F32, schedule, eps=0)


def attention(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    qkv = rng.standard_normal((1, 150, 48))
    statics = {"num_heads": 1, "causal": True}
    check_twin(gpu, "multi_head_attention", [qkv], F32, schedule, **statics)


def rounded_attention(name: str, size: int) -> Callable[[Any, np.random.Generator, int], None]:
    def check(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
        qkv, statics = rng.standard_normal((1, 100, 3 * size)), {"num_heads": 1, "causal": True}
        with gemm.precision(name):
            check_twin(
                *(gpu, "multi_head_attention", [qkv], F32, schedule),
                tolerance=ROUNDED_TOLERANCE[name],
                **statics,
            )

    return check


def embedding(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    ids = rng.integers(0, 40, (12, 50)).astype(np.int32)
    for vocabulary in (40, 1025):
        weight, places = rng.standard_normal((vocabulary, 161)), rng.standard_normal((52, 161))
        check_twin(gpu, "embedding_with_positions", [weight, places, ids], F32, schedule)


def cross_entropy(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    for vocabulary in (300, 1100):
        logits = rng.standard_normal((20, vocabulary)) * 9
        targets = rng.integers(0, vocabulary, 20).astype(np.int32)
        for _ in range(2):  # the second call uses the counter that the first one has left
            check_twin(gpu, "cross_entropy", [logits, targets], F32, schedule)


def product(
    gpu: Any, rng: np.random.Generator, schedule: int, tolerance: float | None = None
) -> None:
    gpu.engine.schedule = schedule
    for m, k, n in ((65, 70, 63), (65, 68, 64)):  # rows are read one by one, or in fours
        a, b = (rng.standard_normal(shape).astype(F32) for shape in ((m, k), (k, n)))
        got = gemm.multiply(gpu.asarray(a), gpu.asarray(b))
        assert_close(got, a.astype(float) @ b, "a·b", tolerance)


def rounded_product(name: str) -> Callable[[Any, np.random.Generator, int], None]:
    def check(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
        with gemm.precision(name):
            product(gpu, rng, schedule, 1e-2)

    return check


def mask(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    keep = dropout.keep_mask((33,), 0.5, seed=1, step=gpu.asarray(np.zeros(1, np.uint32)))
    assert keep.shape == (33,)


def norm_of_all(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    g = rng.standard_normal(1000).astype(F32)
    state = orders.StepState(1, 1, ring=1)
    orders.order_step(gpu.asarray(g), gpu.zeros((), F32), state, max_norm=1.0, windows=1)
    norm = state.history.get()[1, 0]
    np.testing.assert_allclose(norm, np.linalg.norm(g.astype(float)), rtol=1e-12)


def linear(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    x, w, b = (rng.standard_normal(shape) for shape in ((700, 33), (66, 33), (66,)))
    check_twin(gpu, "linear", [x, w, b], F32, schedule, activation="relu")


def linear_in_fours(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    x, w, b = (rng.standard_normal(shape) for shape in ((699, 36), (68, 36), (68,)))
    with gemm.precision("tf32"):
        check_twin(gpu, "linear", [x, w, b], F32, schedule, tolerance=1e-2)


def linear_so_far(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    kernel = KERNELS[TEXTBOOK["linear"]]
    x, w, other = (
        gpu.asarray(rng.standard_normal(s).astype(F32)) for s in ((700, 33), (66, 33), (700, 33))
    )
    y, saved = kernel.forward(x, w, None)
    needs = (True, True, False)
    alone = kernel.backward(y, saved, needs)
    both = kernel.backward(y, saved, needs, so_far=other)
    np.testing.assert_array_equal(both[0].get(), alone[0].get() + other.get())
    np.testing.assert_array_equal(both[1].get(), alone[1].get())


def linear_norm(gpu: Any, rng: np.random.Generator, schedule: int) -> None:
    shapes = ((70, 33), (40, 33), (40,), (70, 40), (40,), (40,))
    check_twin(
        gpu, "linear_norm", [rng.standard_normal(s) for s in shapes], F32, schedule, eps=1e-5
    )


SUMS = "column_sums<float>"
BACKWARD = "linear_backward_fma<float>"
ATTENTION = "attention_forward<float, 16>;attention_delta<float>;attention_backward<float, 16>"
ATTENTION_TF32 = "attention_forward_mma<Tf32, 16>;attention_backward_mma<Tf32, 16>"
ATTENTION_BF16 = "attention_forward_mma<Bf16, 16>;attention_backward_mma<Bf16, 16>"
ATTENTION_WIDE = "attention_forward_mma<Tf32, 128>;attention_backward_mma<Tf32, 128>"
CROSS_ENTROPY = "cross_entropy_forward<float, int>;cross_entropy_backward<float, int>"
EMBEDDING = "embedding_forward<float, int>;embedding_backward<float, int>"
EMBEDDING += ";embedding_backward_rows<float, int>"
NORM = "layer_norm_forward<float>;layer_norm_backward<float>"

# fmt: off
MUTANTS = {
    "sums: no barrier": Mutant(
        "column_sums", "__syncthreads();\n    if (warp == 0 &&", "if (warp == 0 &&", SUMS, sums),
    "sums: no barrier before the parts are added": Mutant(
        "column_sums", "__syncthreads();\n    if (warp > 0)", "if (warp > 0)", SUMS, sums),
    "sums: the last block is not the last": Mutant(
        "column_sums", "flag = before == all - 1", "flag = before == all - 2", SUMS, sums),
    "sums: counters stay where they are": Mutant(
        "column_sums", "if (flag) *counter = 0;", "", SUMS, sums),
    "sums: one row too many": Mutant(
        "column_sums", "row < last;", "row <= last;", SUMS, sums),
    "sums: one column too many": Mutant(
        "column_sums", "warp == 0 && column < columns", "warp == 0", SUMS, sums),
    "sums: one part too few": Mutant(
        "column_sums", "i < parts; i += 8", "i < parts - 1; i += 8", SUMS, sums),
    "norm: the two sums share a counter": Mutant(
        "layer_norm", "counters + size_t(job) * groups", "counters", NORM, long_norm),
    "norm: the two sums share their parts": Mutant(
        "layer_norm", "partial + size_t(job) * parts * channels", "partial", NORM, long_norm),
    "norm: rows begin at another block": Mutant(
        "layer_norm", "(block - sums * blocks_a_sum)", "(block - blocks_a_sum)", NORM, long_norm),
    "norm: the warp ends in parts": Mutant(
        "layer_norm", "inverse_std, int rows, int channels, real eps) {",
        "inverse_std, int rows, int channels, real eps) {\n"
        "  if (threadIdx.x % 32 >= channels % 32) return;", NORM, norm),
    "norm: one element too few": Mutant(
        "layer_norm", "    squares += centred * centred;",
        "    squares += c ? centred * centred : 0;", NORM, norm),
    "attention: no barrier before a tile is loaded": Mutant(
        "attention", "__syncthreads();  // all threads have read the previous tile", "", ATTENTION,
        attention),
    "attention: a query does not see itself": Mutant(
        "attention", "first + j + i <= limit", "first + j + i < limit", ATTENTION, attention),
    "attention: a key sees one query too few": Mutant(
        "attention", "first + i >= row", "first + i > row", ATTENTION, attention),
    "attention: the sum is not corrected": Mutant(
        "attention", "sum *= correction;", "", ATTENTION, attention),
    "attention in TF32: no barrier before the first tile": Mutant(
        "attention_mma", "__syncthreads();  // the first tile is complete", "", ATTENTION_TF32,
        rounded_attention("tf32", 16)),
    "attention in TF32: no barrier before the next tile": Mutant(
        "attention_mma", "__syncthreads();  // the next tile is complete", "", ATTENTION_TF32,
        rounded_attention("tf32", 16)),
    "attention in TF32: a tile is overwritten while it is read": Mutant(
        "attention_mma", "__syncthreads();  // all threads have used the tile", "{}",
        ATTENTION_WIDE, rounded_attention("tf32", 100)),
    "attention in TF32: a query does not see itself": Mutant(
        "attention_mma", "return key + column <=", "return key + column <", ATTENTION_TF32,
        rounded_attention("tf32", 16)),
    "attention in TF32: a tile on the diagonal is not masked": Mutant(
        "attention_mma", "if (key + 8 * N - 1 <=", "if (key + 8 * N - 32 <=", ATTENTION_TF32,
        rounded_attention("tf32", 16)),
    "attention in TF32: a key sees one query too few": Mutant(
        "attention_mma", "&& key + row <=", "&& key + row <", ATTENTION_TF32,
        rounded_attention("tf32", 16)),
    "attention in TF32: a tile of queries on the diagonal is not masked": Mutant(
        "attention_mma", "&& key + 15 <=", "&& key <=", ATTENTION_TF32,
        rounded_attention("tf32", 16)),
    "attention in TF32: a warp ends too early": Mutant(
        "attention_mma", "head.causal ? query + 16 : time;", "head.causal ? query : time;",
        ATTENTION_TF32, rounded_attention("tf32", 16)),
    "attention in TF32: another order of rows in mixtures": Mutant(
        "attention_mma", "return row_of(2 * t + 1);", "return t + 4;", ATTENTION_TF32,
        rounded_attention("tf32", 16)),
    "attention in TF32: the sum is not corrected": Mutant(
        "attention_mma", "sum[half] *= correction;", "", ATTENTION_TF32,
        rounded_attention("tf32", 16)),
    "attention in bfloat16: weights in another order": Mutant(
        "attention_mma", "a[1] = to_bf16_pair(s[0][2], s[0][3]);",
        "a[1] = to_bf16_pair(s[1][0], s[1][1]);", ATTENTION_BF16, rounded_attention("bf16", 16)),
    "attention in bfloat16: own rows in another order": Mutant(
        "attention_mma", "[half + word % 2 * 2]", "[half * 2 + word % 2]", ATTENTION_BF16,
        rounded_attention("bf16", 16)),
    "attention in bfloat16: results in another order": Mutant(
        "attention_mma", "[2 * half + (part + e) / WIDE]", "[2 * half + (part + e) % 2]",
        ATTENTION_BF16, rounded_attention("bf16", 16)),
    "embedding: no barrier before the parts are added": Mutant(
        "embedding", "  __syncthreads();  // all partial sums are written", "", EMBEDDING,
        embedding),
    "embedding: no barrier after the parts are added": Mutant(
        "embedding", "  __syncthreads();  // all have been read, so `parts` may be overwritten", "",
        EMBEDDING, embedding),
    "embedding: the first position is not the first": Mutant(
        "embedding", "__syncthreads_or(i < here", "__syncthreads_or(i < here - 1", EMBEDDING,
        embedding),
    "embedding: the first row on its way counts twice": Mutant(
        "embedding", "matches &= matches - 1;", "if (k) matches &= matches - 1;", EMBEDDING,
        embedding),
    "embedding: a channel too many": Mutant(
        "embedding", "first + c < channels", "true", EMBEDDING, embedding),
    "embedding: rows of positions begin at another block": Mutant(
        "embedding", "place = block - rows", "place = block - rows + 1", EMBEDDING, embedding),
    "embedding: positions that were not read are not zeroed": Mutant(
        "embedding", "place < time ? positions / time : 0", "positions / time", EMBEDDING,
        embedding),
    "cross-entropy: scratch is written while it is read": Mutant(
        "cross_entropy", "__syncthreads();  // an earlier call may still",
        "//", CROSS_ENTROPY, cross_entropy),
    "cross-entropy: one logit too few": Mutant(
        "cross_entropy", "v < columns; v += threads", "v < columns - 1; v += threads",
        CROSS_ENTROPY, cross_entropy),
    "cross-entropy: the last block is not the last": Mutant(
        "cross_entropy", "last_of_blocks(done, gridDim.x,", "last_of_blocks(done, gridDim.x - 1,",
        CROSS_ENTROPY, cross_entropy),
    "cross-entropy: the counter stays where it is": Mutant(
        "cross_entropy", "if (flag) *counter = 0;", "", CROSS_ENTROPY, cross_entropy),
    "cross-entropy: others do not wait for who knows the last block": Mutant(
        "cross_entropy", "  }\n  __syncthreads();\n  return flag;", "  }\n  return flag;",
        CROSS_ENTROPY, cross_entropy),
    "gemm: no barrier before a tile is stored": Mutant(
        "gemm", "__syncthreads();  // all threads have used the previous tile", "",
        "gemm_fma<float>", product),
    "gemm: one row too many": Mutant(
        "gemm", "if (row >= m || column >= n) return;", "if (row > m || column >= n) return;",
        "gemm_fma<float>", product),
    "gemm: a fragment in another order": Mutant(
        "gemm", "4 * (lane / 16 ^ turn(row))", "4 * (lane / 8 % 2 ^ turn(row))", "gemm_tf32",
        rounded_product("tf32")),
    "gemm: rows are read where others were written": Mutant(
        "gemm", "(threadIdx.x % 8 ^ turn(r))", "(threadIdx.x % 8)", "gemm_tf32",
        rounded_product("tf32")),
    "gemm: the tiles of both stages are the same": Mutant(
        "gemm", "stage ^= 1) {", "stage ^= 0) {", "gemm_tf32", rounded_product("tf32")),
    "gemm: pairs in another order": Mutant(
        "gemm", "return to_bf16_pair(x[0], x[1]);", "return to_bf16_pair(x[1], x[1]);",
        "gemm_bf16", rounded_product("bf16")),
    "gemm: one of two neighbours is loaded twice": Mutant(
        "gemm", "(along_depth ? 4 * p : p);", "0;", "gemm_bf16",
        rounded_product("bf16")),
    "gemm: the depth's end is not looked at": Mutant(
        "gemm", "row >= rows || depth >= last", "row >= rows", "gemm_fma<float>", product),
    "linear: no barrier before db is added up": Mutant(
        "linear_backward", "__syncthreads();\n    if (threadIdx.x < ROWS", "if (threadIdx.x < ROWS",
        BACKWARD, linear),
    "linear: db of half of the threads": Mutant(
        "linear_backward", "i < Way::Loaded::SOURCES; i++) sum", "i < 1; i++) sum", BACKWARD,
        linear),
    "linear: db of every column of tiles": Mutant(
        "linear_backward", "dbias && side == 0", "dbias && top == 0", BACKWARD, linear),
    "linear: the last block is not the last": Mutant(
        "linear_backward", "+ tile, parts, shared", "+ tile, parts - 1, shared", BACKWARD, linear),
    "linear: counters stay where they are": Mutant(
        "linear_backward", "if (flag) *counter = 0;", "", BACKWARD, linear),
    "linear: four at once beyond the last row": Mutant(
        "linear_backward", "whole && depth + (along_depth ? 4 * PACK : PACK) <= last", "whole",
        "linear_backward_tf32", linear_in_fours),
    "linear: the last part counts twice": Mutant(
        "linear_backward", "if (first + p < parts) sums", "sums", BACKWARD, linear),
    "linear: parts overlap": Mutant(
        "linear_backward", "length * part;", "weights * part;", BACKWARD, linear),
    "linear: the mask is not looked at": Mutant(
        "linear_backward", "left = {dy, y,", "left = {dy, nullptr,", BACKWARD, linear),
    "linear: one column too many": Mutant(
        "linear_backward", "|| column >= c_in) return;", "|| column > c_in) return;", BACKWARD,
        linear),
    "linear: what there is so far is added to parts of dW as well": Mutant(
        "linear_backward", "so_far && !of_weight ?", "so_far ?", BACKWARD, linear_so_far),
    "linear: the part's end is not looked at": Mutant(
        "linear_backward", "? rows : depth + rows_a_part", "? rows : rows", BACKWARD, linear),
    "linear and norm: rows are read before they are whole": Mutant(
        "linear_norm", "__syncthreads();  // the rows are complete", "", "linear_norm_fma<float>",
        linear_norm),
    "linear and norm: one row too many": Mutant(
        "linear_norm", "if (first + r >= rows) continue;", "", "linear_norm_fma<float>",
        linear_norm),
    "linear and norm: channels that are none count": Mutant(
        "linear_norm", "if (lane + e * WARP < channels) squares", "squares",
        "linear_norm_fma<float>", linear_norm),
    "dropout: the mask's end is not looked at": Mutant(
        "dropout", "if (group * 4 + part < size) keep", "keep", "philox_keep", mask),
    "the norm: one element too many": Mutant(
        "orders", "i < size;\n       i += size_t(gridDim.x) * blockDim.x)\n    sum",
        "i <= size;\n       i += size_t(gridDim.x) * blockDim.x)\n    sum",
        "step_orders<float>", norm_of_all),
}
# fmt: on


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_is_found(gpu: Any, libraries: Any, monkeypatch: Any, name: str) -> None:
    assert_found(MUTANTS[name], gpu, libraries, monkeypatch)


def assert_found(mutant: Mutant, gpu: Any, libraries: Any, monkeypatch: Any) -> None:
    """The check passes with the original kernel, and fails with the fault."""
    code = source(mutant.file)
    assert code.count(mutant.before) == 1
    changed = code.replace(mutant.before, mutant.after)
    found = []
    for library in (libraries[code], Library(changed, mutant.kernels.split(";"), libraries.folder)):
        monkeypatch.setitem(libraries.by_code, code, library)
        found.append([_fails(mutant, gpu, schedule) for schedule in SCHEDULES])
    original, broken = found
    assert not any(original)
    assert any(broken)


def _fails(mutant: Mutant, gpu: Any, schedule: int) -> bool:
    gpu.engine.schedule = schedule
    compiler._function.cache_clear()  # otherwise a launch would use the kernel of an earlier run
    try:
        mutant.check(gpu, np.random.default_rng(3), schedule)
    except (AssertionError, MemoryError, LaunchError):
        return True
    return False
