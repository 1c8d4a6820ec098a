#include "prelude.cuh"
#include "sum_columns.cuh"

// Layer normalization, alone and after a residual sum; the maths is in minigrad/ops/layer_norm.py.
// One warp computes one row (C), so a block has blockDim.x / 32 rows.

// y = w·x̂ + b, where x̂ is x + residual, normalized. `residual`, `weight` and `bias` may be null.
// Saves x̂ and 1/σ.
template <typename real>
__global__ void __launch_bounds__(256) layer_norm_forward(
    const real* __restrict__ x, const real* __restrict__ residual, const real* __restrict__ weight,
    const real* __restrict__ bias, real* __restrict__ y, real* __restrict__ normal,
    real* __restrict__ inverse_std, int rows, int channels, real eps) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP;
  if (row >= rows) return;  // the whole warp
  const size_t start = size_t(row) * channels;

  // Until it gets x̂, `normal` holds x + residual. Each lane reads back only what it wrote itself.
  real sum = 0;
  for (int c = lane; c < channels; c += WARP) {
    const real value = residual ? x[start + c] + residual[start + c] : x[start + c];
    normal[start + c] = value;
    sum += value;
  }
  const real mean = warp_sum(sum) / channels;
  real squares = 0;
  for (int c = lane; c < channels; c += WARP) {
    const real centred = normal[start + c] - mean;
    squares += centred * centred;
  }
  const real scale = 1 / sqrt(warp_sum(squares) / channels + eps);
  for (int c = lane; c < channels; c += WARP) {
    const real value = (normal[start + c] - mean) * scale;
    normal[start + c] = value;
    y[start + c] = (weight ? value * weight[c] : value) + (bias ? bias[c] : 0);
  }
  if (lane == 0) inverse_std[row] = scale;
}

// dx = (g - mean(g) - x̂·mean(g·x̂))/σ with g = dy·w,  dw = Σ_rows dy·x̂,  db = Σ_rows dy.
// `so_far`, if it is not null, is added to dx: it is the gradient of x from other ops.
//
// The first blocks sum columns, for db and dw; the others compute rows of dx. `dx`, `dweight` and
// `dbias` are null if they are not needed, `weight` if there is none.
template <typename real>
__global__ void __launch_bounds__(256) layer_norm_backward(
    const real* __restrict__ dy, const real* __restrict__ normal,
    const real* __restrict__ inverse_std, const real* __restrict__ weight,
    const real* __restrict__ so_far, real* __restrict__ dx, real* dweight, real* dbias,
    real* partial, unsigned* counters, int rows, int channels, int parts, int rows_a_block) {
  const int groups = (channels + WARP - 1) / WARP;
  const int blocks_a_sum = groups * parts, sums = (dbias ? 1 : 0) + (dweight ? 1 : 0);
  int block = blockIdx.x;
  if (block < sums * blocks_a_sum) {
    const int job = block / blocks_a_sum;
    const bool of_weight = job == 1 || !dbias;
    block %= blocks_a_sum;
    const Columns<real> all = {dy,
                               of_weight ? normal : nullptr,
                               nullptr,
                               nullptr,
                               of_weight ? dweight : dbias,
                               partial + size_t(job) * parts * channels,
                               counters + size_t(job) * groups,
                               rows,
                               channels,
                               rows_a_block,
                               parts};
    all.sum(block % groups, block / groups);
    return;
  }

  const int row = (block - sums * blocks_a_sum) * (blockDim.x / WARP) + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP;
  if (row >= rows) return;
  const size_t start = size_t(row) * channels;

  real sum = 0, along = 0;
  for (int c = lane; c < channels; c += WARP) {
    const real g = weight ? times(dy[start + c], weight[c]) : dy[start + c];
    sum += g;
    along += g * normal[start + c];
  }
  const real mean = warp_sum(sum) / channels;
  const real mean_along = warp_sum(along) / channels;
  const real scale = inverse_std[row];
  for (int c = lane; c < channels; c += WARP) {
    const real g = weight ? times(dy[start + c], weight[c]) : dy[start + c];
    const real gradient = (g - mean - normal[start + c] * mean_along) * scale;
    dx[start + c] = so_far ? gradient + so_far[start + c] : gradient;
  }
}
