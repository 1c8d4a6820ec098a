#pragma once

// Sums over the rows of a matrix, for 32 columns, by blocks of 8 warps. `sum` is the work of one
// block.
//
// A block sums `rows_a_block` rows, always in the same order. If there are several such parts, each
// block writes its sums to `partial`, and the last block to finish adds up the parts in order. So
// the result does not depend on which block that is. `counter` counts finished blocks and is 0
// before and after.
template <typename real> struct Columns {
  const real* __restrict__ a;
  const real* __restrict__ b;  // null for Σ a, else Σ a·b
  const real* __restrict__ y;  // may be null; where it is <= 0, a counts as 0
  real* __restrict__ masked;   // if y is not null: gets the masked a
  real* out;
  real* partial;
  unsigned* counter;
  int rows, columns, rows_a_block, parts;

  // `group` of 32 columns, `part` of the rows.
  __device__ __forceinline__ void sum(int group, int part) const {
    struct Shared {
      real sums[8][WARP];
      bool last;
    };
    Shared& shared = block_shared<Shared>();
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int column = group * WARP + lane;
    const int first = part * rows_a_block;
    const int last = smaller(first + rows_a_block, rows);

    real sum = 0;
    if (column < columns) {
#pragma unroll 8  // so that eight loads are in flight at once
      for (int row = first + warp; row < last; row += 8) {
        const size_t place = size_t(row) * columns + column;
        real value = a[place];
        if (y) {
          if (y[place] <= 0) value = 0;
          masked[place] = value;
        }
        sum += b ? value * b[place] : value;
      }
    }
    shared.sums[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && column < columns) {
      real total = 0;
      for (int i = 0; i < 8; i++) total += shared.sums[i][lane];
      if (parts == 1)
        out[column] = total;
      else
        partial[size_t(part) * columns + column] = total;
    }
    if (parts == 1) return;

    if (!last_of_blocks(counter + group, parts, shared.last)) return;
    sum = 0;
    if (column < columns)
#pragma unroll 8
      for (int i = warp; i < parts; i += 8) sum += __ldcg(partial + size_t(i) * columns + column);
    shared.sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0) return;
    if (column < columns) {
      real total = 0;
      for (int i = 0; i < 8; i++) total += shared.sums[i][lane];
      out[column] = total;
    }
  }
};
