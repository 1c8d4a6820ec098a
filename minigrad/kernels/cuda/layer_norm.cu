#include "prelude.cuh"

// Layer normalisation, alone and after a residual sum; the maths is in minigrad/ops/layer_norm.py.
// A warp takes a row (C). Rows of a block: blockDim.x / 32.

// y = w·x̂ + b of x + residual. `residual`, `weight` and `bias` may be null. Saves x̂ and 1/σ.
template <typename real>
__global__ void __launch_bounds__(256) layer_norm_forward(
    const real* __restrict__ x, const real* __restrict__ residual, const real* __restrict__ weight,
    const real* __restrict__ bias, real* __restrict__ y, real* __restrict__ normal,
    real* __restrict__ inverse_std, int rows, int channels, real eps) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP;
  if (row >= rows) return;  // the whole warp
  const size_t start = size_t(row) * channels;

  // `normal` holds x + residual meanwhile; each lane reads back only what it wrote itself.
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

// dx = (g - mean(g) - x̂·mean(g·x̂))/σ with g = dy·w. `weight` may be null.
template <typename real>
__global__ void __launch_bounds__(256) layer_norm_backward(
    const real* __restrict__ dy, const real* __restrict__ normal,
    const real* __restrict__ inverse_std, const real* __restrict__ weight, real* __restrict__ dx,
    int rows, int channels) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP;
  if (row >= rows) return;
  const size_t start = size_t(row) * channels;

  real sum = 0, along = 0;
  for (int c = lane; c < channels; c += WARP) {
    const real g = weight ? dy[start + c] * weight[c] : dy[start + c];
    sum += g;
    along += g * normal[start + c];
  }
  const real mean = warp_sum(sum) / channels;
  const real mean_along = warp_sum(along) / channels;
  const real scale = inverse_std[row];
  for (int c = lane; c < channels; c += WARP) {
    const real g = weight ? dy[start + c] * weight[c] : dy[start + c];
    dx[start + c] = (g - mean - normal[start + c] * mean_along) * scale;
  }
}
