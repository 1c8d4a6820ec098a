#include "prelude.cuh"
#include "sum_columns.cuh"

// Sums over the rows of a matrix: for bias gradients, and for the partial sums of a split matmul.
// blockIdx.x is a group of 32 columns, blockIdx.y a part of the rows. With `y`, a counts as 0 where
// y is not positive (the gradient of ReLU), and the masked a is written to `masked`.
template <typename real>
__global__ void __launch_bounds__(256)
    column_sums(const real* __restrict__ a, const real* __restrict__ y, real* __restrict__ masked,
                real* sums, real* partial, unsigned* counters, int rows, int columns,
                int rows_a_block) {
  const Columns<real> all = {a,       nullptr,  y,    masked,  sums,
                             partial, counters, rows, columns, rows_a_block,
                             int(gridDim.y)};
  all.sum(blockIdx.x, blockIdx.y);
}
