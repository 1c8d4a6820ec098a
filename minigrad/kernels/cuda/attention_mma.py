"""The kernels of attention whose products are rounded, on tensor cores: attention_mma.cu.

Factors are q, k, v and dy, and also P and dS: these are computed in float32 and then rounded, in
forward P relative to the largest score so far. All else is float32, ln Σ e^S and the sums of
products among it.

Forward goes through the keys and values, each half of backward through two of q, k, v and dy, a
tile of 32 rows at a time (16 in backward with heads of 128): while a tile is used, the next is on
its way from memory to registers, and then, rounded, to the other half of shared memory. What blocks
take for compute capability 9.0, in TF32 and bfloat16, and how many fit a multiprocessor with 65,536
registers (its shared memory would hold more):

                     forward                                backward
    head  rows   threads  registers     KB   blocks    threads  registers     KB   blocks
      16    64       128     76  69  12  5     6  7        128    128 119  13 11     4  4
      32    64       128    107  83  20  9     4  5        128    168 140  21 19     3  3
      64   128       128    251 228  37 22     2  2        256    249 233  37 44     1  1
     128   128       256    244 219  35 38     1  1        256    238 240  35 38     1  1

Blocks of 128 rows read half as much from the L2 cache as blocks of 64 would, which counts with
large heads, as arrays are float32. In forward with heads of 64 a warp has 32 queries, so that it
uses a word that it reads from shared memory twice. Backward computes P twice, for dq and for dk and
dv, and needs no atomic sums in return.
"""

from __future__ import annotations

from minigrad.kernels.cuda.compile import Source

SOURCE = Source(
    "attention_mma",
    "attention_forward_mma<{factors}, {head}>",
    "attention_backward_mma<{factors}, {head}>",
)
FACTORS = {"tf32": "Tf32", "bf16": "Bf16"}  # by precision, their names in C++


def choose(name: str, factors: str, head: int) -> tuple[str, int, int]:
    """Of the kernel for "forward" or "backward": its name, the rows of a block, its threads.

    The same as in `Plan` of the .cu file.
    """
    rows = 64 if head < 64 else 128
    rows_a_warp = 32 if name == "forward" and head == 64 else 16
    return f"attention_{name}_mma<{FACTORS[factors]}, {head}>", rows, rows // rows_a_warp * 32
