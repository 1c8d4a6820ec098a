#include "prelude.cuh"
#include "tensor_cores.cuh"
#include "tiles.cuh"
#include "tensor_tiles.cuh"

// A linear layer, a residual sum and layer norm in one launch:
//
//   y = w·x̂ + b,   x̂ = normalized (x Wᵀ + bias + residual)
//
// It needs at most TILE outputs, because then a block has whole rows and can normalize them.
// Results are bitwise identical to those of gemm.cu and layer_norm.cu one after the other.

// Computes x̂, y and 1/σ of rows `first`, first + 1, ..., by one warp. `normal` holds x Wᵀ + bias +
// residual before and x̂ after. Four rows are computed together, so that their sums need not wait
// for each other. A lane has two numbers of a row.
template <typename real>
__device__ __forceinline__ void normalise_rows(const real* __restrict__ gain,
                                               const real* __restrict__ shift,
                                               real* __restrict__ y, real* normal,
                                               real* __restrict__ inverse_std, int first, int rows,
                                               int channels, real eps) {
  constexpr int AT_ONCE = 4, EACH = TILE / WARP;
  const int lane = threadIdx.x % WARP;
  real value[AT_ONCE][EACH], mean[AT_ONCE], scale[AT_ONCE];
#pragma unroll
  for (int r = 0; r < AT_ONCE; r++) {
    real sum = 0;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int c = lane + e * WARP;
      const bool inside = first + r < rows && c < channels;
      value[r][e] = inside ? normal[size_t(first + r) * channels + c] : 0;
      sum += value[r][e];
    }
    mean[r] = sum;
  }
#pragma unroll
  for (int r = 0; r < AT_ONCE; r++) mean[r] = warp_sum(mean[r]) / channels;
#pragma unroll
  for (int r = 0; r < AT_ONCE; r++) {
    real squares = 0;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const real centred = value[r][e] - mean[r];
      if (lane + e * WARP < channels) squares += centred * centred;
    }
    scale[r] = squares;
  }
#pragma unroll
  for (int r = 0; r < AT_ONCE; r++) scale[r] = 1 / sqrt(warp_sum(scale[r]) / channels + eps);
#pragma unroll
  for (int r = 0; r < AT_ONCE; r++) {
    if (first + r >= rows) continue;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int c = lane + e * WARP;
      if (c >= channels) continue;
      const size_t place = size_t(first + r) * channels + c;
      const real x = (value[r][e] - mean[r]) * scale[r];
      normal[place] = x;
      y[place] = (gain ? x * gain[c] : x) + (shift ? shift[c] : 0);
    }
    if (lane == 0) inverse_std[first + r] = scale[r];
  }
}

template <class Way, typename real = typename Way::real>
__device__ __forceinline__ void linear_norm(const real* __restrict__ x,
                                            const real* __restrict__ weight,
                                            const real* __restrict__ bias,
                                            const real* __restrict__ residual,
                                            const real* __restrict__ gain,
                                            const real* __restrict__ shift, real* __restrict__ y,
                                            real* normal, real* __restrict__ inverse_std, int rows,
                                            int inputs, int channels, real eps) {
  constexpr int AT_ONCE = 4, WARPS = Way::THREADS / WARP;
  const int top = blockIdx.x * Way::ROWS;
  const Factor<real> left = {x, nullptr, rows, inputs, true, top};
  const Factor<real> right = {weight, nullptr, channels, inputs, true, 0};
  typename Way::Loaded loaded;
  Way::run(left, right, 0, inputs, loaded, [&](int row, int column, real value) {
    row += top;
    if (row >= rows || column >= channels) return;
    if (bias) value += bias[column];
    const size_t place = size_t(row) * channels + column;
    normal[place] = value + residual[place];
  });
  __syncthreads();  // the rows are complete
  const int last = smaller(top + Way::ROWS, rows);
  for (int first = top + threadIdx.x / WARP * AT_ONCE; first < last; first += WARPS * AT_ONCE)
    normalise_rows(gain, shift, y, normal, inverse_std, first, rows, channels, eps);
}

template <typename real>
__global__ void __launch_bounds__(Fma<real>::THREADS, 2)
    linear_norm_fma(const real* __restrict__ x, const real* __restrict__ weight,
                    const real* __restrict__ bias, const real* __restrict__ residual,
                    const real* __restrict__ gain, const real* __restrict__ shift,
                    real* __restrict__ y, real* normal, real* __restrict__ inverse_std, int rows,
                    int inputs, int channels, real eps) {
  linear_norm<Fma<real>>(x, weight, bias, residual, gain, shift, y, normal, inverse_std, rows,
                         inputs, channels, eps);
}

__global__ void __launch_bounds__(Tensor<Tf32, 32>::THREADS, 2)
    linear_norm_tf32(const float* __restrict__ x, const float* __restrict__ weight,
                     const float* __restrict__ bias, const float* __restrict__ residual,
                     const float* __restrict__ gain, const float* __restrict__ shift,
                     float* __restrict__ y, float* normal, float* __restrict__ inverse_std,
                     int rows, int inputs, int channels, float eps) {
  linear_norm<Tensor<Tf32, 32>>(x, weight, bias, residual, gain, shift, y, normal, inverse_std, rows,
                            inputs, channels, eps);
}

__global__ void __launch_bounds__(Tensor<Bf16, 32>::THREADS, 2)
    linear_norm_bf16(const float* __restrict__ x, const float* __restrict__ weight,
                     const float* __restrict__ bias, const float* __restrict__ residual,
                     const float* __restrict__ gain, const float* __restrict__ shift,
                     float* __restrict__ y, float* normal, float* __restrict__ inverse_std,
                     int rows, int inputs, int channels, float eps) {
  linear_norm<Tensor<Bf16, 32>>(x, weight, bias, residual, gain, shift, y, normal, inverse_std, rows,
                            inputs, channels, eps);
}
