#include "prelude.cuh"

// Converts float32 to bfloat16 (the upper half of a float, rounded half to even) and back.

__device__ __forceinline__ unsigned short rounded_bf16(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return 0x7fff;  // NaN; rounding could turn one into an infinity
  return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

struct alignas(16) EightNumbers {
  unsigned short x[8];
};

// Rounds an array by all threads of the grid, eight numbers at a time if the addresses are aligned.
__device__ __forceinline__ void round_all(const float* __restrict__ from,
                                          unsigned short* __restrict__ to, size_t size) {
  const size_t first = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t threads = size_t(gridDim.x) * blockDim.x;
  const bool aligned = in_fours(from, reinterpret_cast<const float*>(to), 0);
  const size_t eights = aligned ? size / 8 : 0;
  for (size_t i = first; i < eights; i += threads) {
    const FourFloats* fours = reinterpret_cast<const FourFloats*>(from) + 2 * i;
    const FourFloats low = fours[0], high = fours[1];
    EightNumbers eight;
#pragma unroll
    for (int e = 0; e < 4; e++) {
      eight.x[e] = rounded_bf16(low.x[e]);
      eight.x[4 + e] = rounded_bf16(high.x[e]);
    }
    reinterpret_cast<EightNumbers*>(to)[i] = eight;
  }
  for (size_t i = 8 * eights + first; i < size; i += threads) to[i] = rounded_bf16(from[i]);
}

// Two arrays in one launch, because a matmul has two operands; `size_b` may be 0.
__global__ void __launch_bounds__(256)
    to_bf16(const float* __restrict__ a, unsigned short* __restrict__ a_out, size_t size_a,
            const float* __restrict__ b, unsigned short* __restrict__ b_out, size_t size_b) {
  round_all(a, a_out, size_a);
  round_all(b, b_out, size_b);
}

__global__ void __launch_bounds__(256)
    from_bf16(const unsigned short* __restrict__ x, float* __restrict__ y, size_t size) {
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x)
    y[i] = __uint_as_float(unsigned(x[i]) << 16);
}
