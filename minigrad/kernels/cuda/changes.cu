#include "prelude.cuh"

struct ChangeScratch {
  double numbers[8];  // one per warp
};

// Each block computes {Σ (after - before)², Σ before²} of one slice of two flat arrays, in double
// precision. `bounds` holds the start and the end of each slice.
template <typename real>
__global__ void __launch_bounds__(256)
    change_squares(const real* __restrict__ after, const real* __restrict__ before,
                   const long long* __restrict__ bounds, double* __restrict__ squares) {
  double* scratch = block_shared<ChangeScratch>().numbers;
  const size_t stop = bounds[2 * blockIdx.x + 1];
  double moved = 0, size = 0;
  for (size_t i = bounds[2 * blockIdx.x] + threadIdx.x; i < stop; i += blockDim.x) {
    const double old = before[i], change = after[i] - old;
    moved += change * change;
    size += old * old;
  }
  moved = block_sum(moved, scratch);
  size = block_sum(size, scratch);
  if (threadIdx.x > 0) return;
  squares[2 * blockIdx.x] = moved;
  squares[2 * blockIdx.x + 1] = size;
}
