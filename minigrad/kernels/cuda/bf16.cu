#include "prelude.cuh"

// Floats to bfloat16, the upper half of a float, rounded half to even, and back.

__device__ __forceinline__ unsigned short rounded_bf16(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return 0x7fff;  // rounding could make an infinity of a NaN
  return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Two arrays in one launch, as the factors of a product are two; `size_b` may be 0.
__global__ void __launch_bounds__(256)
    to_bf16(const float* __restrict__ a, unsigned short* __restrict__ a_out, size_t size_a,
            const float* __restrict__ b, unsigned short* __restrict__ b_out, size_t size_b) {
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size_a + size_b;
       i += size_t(gridDim.x) * blockDim.x) {
    if (i < size_a)
      a_out[i] = rounded_bf16(a[i]);
    else
      b_out[i - size_a] = rounded_bf16(b[i - size_a]);
  }
}

__global__ void __launch_bounds__(256)
    from_bf16(const unsigned short* __restrict__ x, float* __restrict__ y, size_t size) {
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x)
    y[i] = __uint_as_float(unsigned(x[i]) << 16);
}
