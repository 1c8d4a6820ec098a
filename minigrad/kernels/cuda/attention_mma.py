"""Attention with matmuls on tensor cores, whose operands are rounded: attention_mma.cu.

The operands are q, k, v and dy, and also P and dS, which are computed in float32 and then rounded.
(Forward rounds P relative to the largest score so far.) All else is float32, also ln Σ e^S and the
sums inside a matmul.

Forward reads keys and values in tiles of 32 rows. Each half of backward reads two of q, k, v and dy
likewise (16 rows with heads of 128). While one tile is used, the next is loaded to registers; then
it is rounded and written to the other half of shared memory. The table lists what a block uses for
compute capability 9.0, in TF32 and in bfloat16, and how many blocks fit a multiprocessor with
65,536 registers (its shared memory would hold more):

                     forward                                backward
    head  rows   threads  registers     KB   blocks    threads  registers     KB   blocks
      16    64       128     76  69  12  5     6  7        128    128 119  13 11     4  4
      32    64       128    107  83  20  9     4  5        128    168 140  21 19     3  3
      64   128       128    251 228  37 22     2  2        256    249 233  37 44     1  1
     128   128       256    244 219  35 38     1  1        256    238 240  35 38     1  1

Blocks of 128 rows read half as much from the L2 cache as blocks of 64 would. This matters for large
heads, because arrays are float32. In forward with heads of 64 a warp has 32 queries, so that it
uses each word from shared memory twice. Backward computes P twice, once for dq, once for dk and dv;
so it needs no atomic sums.
"""

from __future__ import annotations

from minigrad.kernels.cuda.compile import Source

SOURCE = Source(
    "attention_mma",
    "attention_forward_mma<{factors}, {head}>",
    "attention_backward_mma<{factors}, {head}>",
)
FACTORS = {"tf32": "Tf32", "bf16": "Bf16"}  # precision -> the operands' type in C++


def choose(name: str, factors: str, head: int) -> tuple[str, int, int]:
    """The name, rows per block and threads per block of the kernel for "forward" or "backward".

    Rows and threads must equal those of `Plan` in the .cu file.
    """
    rows = 64 if head < 64 else 128
    rows_a_warp = 32 if name == "forward" and head == 64 else 16
    return f"attention_{name}_mma<{FACTORS[factors]}, {head}>", rows, rows // rows_a_warp * 32
