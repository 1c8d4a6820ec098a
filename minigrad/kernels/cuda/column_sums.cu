#include "prelude.cuh"

// Sums over the rows of a matrix: bias gradients, norm weights, partial products of a split GEMM.
//
// A block of 32 x 8 threads adds up `rows_a_block` rows of 32 columns, always in the same order.
// Where there are several such blocks, the last one that is done with these columns adds up the
// parts that all have left in `partial`, in their order: so the result does not depend on which one
// that was. `counters` count the blocks that are done, and are 0 before and after.
//
// blockIdx.z chooses among what is wanted: Σ a (`sums`), Σ a·b (`products`), each if not null. With
// `y`, a is set to 0 where y is not positive (the gradient of ReLU), which is written to `masked`.

template <typename real>
__global__ void __launch_bounds__(256)
    column_sums(const real* __restrict__ a, const real* __restrict__ b, const real* __restrict__ y,
                real* __restrict__ masked, real* sums, real* products, real* partial,
                unsigned* counters, int rows, int columns, int rows_a_block) {
  struct Shared {
    real sums[8][WARP];
    bool last;
  };
  Shared& shared = block_shared<Shared>();
  const int column = blockIdx.x * WARP + threadIdx.x;
  const int first = blockIdx.y * rows_a_block;
  const int last = smaller(first + rows_a_block, rows);
  const bool product = blockIdx.z == 1 || !sums;

  real sum = 0;
  if (column < columns) {
    for (int row = first + threadIdx.y; row < last; row += 8) {
      const size_t place = size_t(row) * columns + column;
      real value = a[place];
      if (y) {
        value *= real(y[place] > 0);
        masked[place] = value;
      }
      sum += product ? value * b[place] : value;
    }
  }
  shared.sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  const int parts = gridDim.y;
  real* out = product ? products : sums;
  partial += size_t(blockIdx.z) * parts * columns;
  if (threadIdx.y == 0 && column < columns) {
    real total = 0;
    for (int i = 0; i < 8; i++) total += shared.sums[i][threadIdx.x];
    if (parts == 1)
      out[column] = total;
    else
      partial[size_t(blockIdx.y) * columns + column] = total;
  }
  if (parts == 1) return;

  unsigned* counter = counters + size_t(blockIdx.z) * gridDim.x + blockIdx.x;
  __threadfence();  // the part is written before it counts
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0)
    shared.last = atomicAdd(counter, 1u) == unsigned(parts - 1);
  __syncthreads();
  if (!shared.last) return;
  __threadfence();
  sum = 0;
  if (column < columns)
    for (int part = threadIdx.y; part < parts; part += 8)
      sum += __ldcg(partial + size_t(part) * columns + column);
  shared.sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0) return;
  if (threadIdx.x == 0) *counter = 0;
  if (column < columns) {
    real total = 0;
    for (int i = 0; i < 8; i++) total += shared.sums[i][threadIdx.x];
    out[column] = total;
  }
}
