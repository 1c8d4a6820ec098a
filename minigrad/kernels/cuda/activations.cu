#include "prelude.cuh"

// ReLU and GELU; see minigrad/ops/activations.py. Each thread computes single elements. In a linear
// layer the matmul (gemm.cu) adds the bias and applies ReLU itself.

#define FOR_EACH_ELEMENT(i, size)                                             \
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size; \
       i += size_t(gridDim.x) * blockDim.x)

template <typename real>
__global__ void __launch_bounds__(256)
    relu_forward(const real* __restrict__ x, real* __restrict__ y, size_t size) {
  FOR_EACH_ELEMENT(i, size) y[i] = x[i] < 0 ? 0 : x[i];  // NaN stays NaN
}

// dx = 0 where x <= 0, else dy, also where x is NaN. `x` may be the input or the output of ReLU:
// both are <= 0 at the same elements.
template <typename real>
__global__ void __launch_bounds__(256) relu_backward(const real* __restrict__ dy,
                                                     const real* __restrict__ x,
                                                     real* __restrict__ dx, size_t size) {
  FOR_EACH_ELEMENT(i, size) dx[i] = x[i] <= 0 ? 0 : dy[i];
}

constexpr double SQRT_HALF = 0.70710678118654752440;
constexpr double SQRT_2_OVER_PI = 0.79788456080286535588;
constexpr double CUBIC = 0.044715;

// x·Φ(x), or its approximation by tanh if `approximate`.
template <typename real>
__global__ void __launch_bounds__(256)
    gelu_forward(const real* __restrict__ x, real* __restrict__ y, size_t size, int approximate) {
  FOR_EACH_ELEMENT(i, size) {
    const real z = x[i];
    const real inner = real(SQRT_2_OVER_PI) * (z + real(CUBIC) * z * z * z);
    const real shape = approximate ? tanh(inner) : erf(z * real(SQRT_HALF));
    y[i] = real(0.5) * z * (1 + shape);
  }
}

// dx = dy·(Φ + x·Φ').
template <typename real>
__global__ void __launch_bounds__(256)
    gelu_backward(const real* __restrict__ dy, const real* __restrict__ x, real* __restrict__ dx,
                  size_t size, int approximate) {
  FOR_EACH_ELEMENT(i, size) {
    const real z = x[i];
    real shape, slope;
    if (approximate) {
      shape = tanh(real(SQRT_2_OVER_PI) * (z + real(CUBIC) * z * z * z));
      slope = (1 - shape * shape) * real(SQRT_2_OVER_PI) * (1 + real(3 * CUBIC) * z * z);
    } else {
      shape = erf(z * real(SQRT_HALF));
      slope = real(SQRT_2_OVER_PI) * exp(real(-0.5) * z * z);
    }
    dx[i] = dy[i] * real(0.5) * (1 + shape + z * slope);
  }
}
