#include "prelude.cuh"

// The norm of all gradients and AdamW over flat buffers; see minigrad/ops/adamw.py.

struct NormScratch {
  double numbers[8];  // one a warp
};

// One partial sum of x² a block, in double precision.
template <typename real>
__global__ void __launch_bounds__(256)
    squares_partial(const real* __restrict__ x, double* __restrict__ partial, size_t size) {
  double sum = 0;
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x)
    sum += double(x[i]) * double(x[i]);
  sum = block_sum(sum, block_shared<NormScratch>().numbers);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// result = {√Σ partial, what clipping to `max_norm` multiplies gradients by}, by one block.
__global__ void __launch_bounds__(256) squares_finish(const double* __restrict__ partial,
                                                      double* __restrict__ result, int parts,
                                                      double max_norm) {
  double sum = 0;
  for (int i = threadIdx.x; i < parts; i += blockDim.x) sum += partial[i];
  sum = block_sum(sum, block_shared<NormScratch>().numbers);
  if (threadIdx.x > 0) return;
  const double norm = sqrt(sum);
  const double scale = max_norm / (norm + 1e-6);
  result[0] = norm;
  result[1] = scale > 1 ? 1 : scale;  // a NaN stays one
}

// p, m and v in place. `grad_scale` (one number on the device) and `decays` (a weight decay an
// element, instead of `weight_decay`) may be null. `rate` and `root_eps` hold the corrections of
// the averages: rate = lr·√(1-β₂ᵗ)/(1-β₁ᵗ), root_eps = ε·√(1-β₂ᵗ).
template <typename real>
__global__ void __launch_bounds__(256) adamw_update(
    real* __restrict__ p, const real* __restrict__ g, real* __restrict__ m, real* __restrict__ v,
    const double* __restrict__ grad_scale, const real* __restrict__ decays, size_t size, real lr,
    real beta1, real beta2, real one_minus_beta1, real one_minus_beta2, real weight_decay,
    real rate, real root_eps) {
  const real scale = grad_scale ? real(*grad_scale) : 1;
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x) {
    const real gradient = g[i] * scale;
    const real mean = beta1 * m[i] + one_minus_beta1 * gradient;
    const real square = beta2 * v[i] + one_minus_beta2 * (gradient * gradient);
    const real decay = decays ? decays[i] : weight_decay;
    m[i] = mean;
    v[i] = square;
    p[i] = p[i] * (1 - lr * decay) - rate * mean / (sqrt(square) + root_eps);
  }
}
