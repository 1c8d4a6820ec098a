#include "prelude.cuh"

// AdamW over flat buffers; see minigrad/ops/updates/adamw.py.

// The update of one element. `rate` and `root_eps` include the bias corrections of the averages:
// rate = lr·√(1-β₂ᵗ)/(1-β₁ᵗ), root_eps = ε·√(1-β₂ᵗ).
template <typename real> struct Rule {
  real beta1, beta2, one_minus_beta1, one_minus_beta2, weight_decay, lr, rate, root_eps;

  __device__ __forceinline__ void apply(real& p, real gradient, real& m, real& v) const {
    m = beta1 * m + one_minus_beta1 * gradient;
    v = beta2 * v + one_minus_beta2 * (gradient * gradient);
    p = p * (1 - lr * weight_decay) - rate * m / (sqrt(v) + root_eps);
  }
};

// Updates p, m and v in place.
template <typename real>
__global__ void __launch_bounds__(256) adamw_update(
    real* __restrict__ p, const real* __restrict__ g, real* __restrict__ m, real* __restrict__ v,
    size_t size, real grad_scale, real beta1, real beta2, real one_minus_beta1,
    real one_minus_beta2, real weight_decay, real lr, real rate, real root_eps) {
  const Rule<real> rule = {beta1,        beta2, one_minus_beta1, one_minus_beta2,
                           weight_decay, lr,    rate,            root_eps};
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x)
    rule.apply(p[i], g[i] * grad_scale, m[i], v[i]);
}

// The same, with numbers that lie on the device: whether the step is made, the factor of the
// gradient, the learning rate and the step count.
template <typename real>
__global__ void __launch_bounds__(256) adamw_update_ordered(
    real* __restrict__ p, const real* __restrict__ g, real* __restrict__ m, real* __restrict__ v,
    const double* __restrict__ made, const double* __restrict__ grad_scale,
    const double* __restrict__ learning_rate, const double* __restrict__ step, size_t size,
    real beta1, real beta2, real one_minus_beta1, real one_minus_beta2, real weight_decay,
    const double exact_beta1, const double exact_beta2, const double eps) {
  struct Shared {
    double powers[2];  // β₁ᵗ, β₂ᵗ
  };
  Shared& shared = block_shared<Shared>();
  if (*made == 0) return;
  if (threadIdx.x < 2)  // once per block, because pow is slow
    shared.powers[threadIdx.x] = pow(threadIdx.x == 0 ? exact_beta1 : exact_beta2, *step);
  __syncthreads();
  const double root = sqrt(1 - shared.powers[1]), lr = *learning_rate;
  const double correction = root / (1 - shared.powers[0]);
  const Rule<real> rule = {beta1,        beta2,    one_minus_beta1,       one_minus_beta2,
                           weight_decay, real(lr), real(lr * correction), real(eps * root)};
  const real scale = real(*grad_scale);
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x)
    rule.apply(p[i], g[i] * scale, m[i], v[i]);
}
