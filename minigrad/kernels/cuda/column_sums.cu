#include "prelude.cuh"

// Sums over the rows of a matrix: bias gradients, norm weights, partial products of a split GEMM.
//
// A block of 32 x 8 threads adds up `rows_a_block` rows of 32 columns, always in the same order, and
// writes one row of `out`: a second launch over those rows finishes. blockIdx.z counts matrices,
// `stride` apart in `a`; the second (z = 1) is multiplied by `b` if that is not null. So with
// stride 0 one launch gives both Σ a and Σ a·b.

template <typename real>
__global__ void __launch_bounds__(256) column_sums(const real* __restrict__ a,
                                                   const real* __restrict__ b,
                                                   real* __restrict__ out, int rows, int columns,
                                                   int rows_a_block, int stride) {
  struct Shared {
    real sums[8][WARP];
  };
  Shared& shared = block_shared<Shared>();
  const int column = blockIdx.x * WARP + threadIdx.x;
  const int first = blockIdx.y * rows_a_block;
  const int last = smaller(first + rows_a_block, rows);
  const bool product = b && blockIdx.z == 1;
  a += size_t(blockIdx.z) * stride;

  real sum = 0;
  if (column < columns) {
    for (int row = first + threadIdx.y; row < last; row += 8) {
      const size_t place = size_t(row) * columns + column;
      sum += product ? a[place] * b[place] : a[place];
    }
  }
  shared.sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    real total = 0;
    for (int part = 0; part < 8; part++) total += shared.sums[part][threadIdx.x];
    out[(size_t(blockIdx.z) * gridDim.y + blockIdx.y) * columns + column] = total;
  }
}
