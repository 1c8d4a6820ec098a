// Functions that all kernels share. `compile.py` puts this text before every .cu file, so that
// NVRTC needs no search path for headers. `real` is float or double everywhere. Pointers are not
// null unless a comment says so.
#pragma once

[[maybe_unused]] constexpr unsigned ALL_LANES = 0xffffffffu;
[[maybe_unused]] constexpr int WARP = 32;

// The lowest finite number. e^(lowest - x) is 0 for every ordinary x; with -inf it could be NaN.
template <typename real> __device__ constexpr real lowest();
template <> __device__ constexpr float lowest<float>() { return -3.402823466e+38f; }
template <> __device__ constexpr double lowest<double>() { return -1.7976931348623157e+308; }

template <typename T> __device__ __forceinline__ T larger(T a, T b) { return a > b ? a : b; }
template <typename T> __device__ __forceinline__ T smaller(T a, T b) { return a < b ? a : b; }

// a·b, rounded: never a part of a fused multiply-add. Where a product is subtracted from an equal
// number, a fused multiply-add would leave the product's rounding error instead of 0.
#ifndef CUDA_ON_CPU
__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double times(double a, double b) { return __dmul_rn(a, b); }
#else
template <typename real> real times(real a, real b) { return a * b; }
#endif

// Whether this block is the last of `all` blocks that call this with the same counter. All threads
// of the block must call it. The last block can then read what the others have written before, by
// __ldcg, which skips the L1 cache. The counter is 0 before and after. `flag` is in shared memory.
__device__ __forceinline__ bool last_of_blocks(unsigned* counter, unsigned all, bool& flag) {
  __syncthreads();  // all threads have written before thread 0 counts
  if (threadIdx.x == 0) {
#ifndef CUDA_ON_CPU
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
#else
    const unsigned before = atomicAdd(counter, 1u);
#endif
    flag = before == all - 1;
    if (flag) *counter = 0;
  }
  __syncthreads();
  return flag;
}

// Four floats that are read or written by one instruction; their address is a multiple of 16.
struct alignas(16) FourFloats {
  float x[4];
};

// Four floats that another block may have written; the load skips the L1 cache.
__device__ __forceinline__ FourFloats four_from_l2(const float* from) {
#ifndef CUDA_ON_CPU
  const float4 four = __ldcg(reinterpret_cast<const float4*>(from));
  return {{four.x, four.y, four.z, four.w}};
#else
  return *reinterpret_cast<const FourFloats*>(from);
#endif
}

// Whether rows that lie `stride` apart can be read four floats at a time from both addresses on.
// Either address may be null.
__device__ __forceinline__ bool in_fours(const float* one, const float* other, size_t stride) {
  const size_t addresses = reinterpret_cast<size_t>(one) | reinterpret_cast<size_t>(other);
  return stride % 4 == 0 && addresses % 16 == 0;
}

// The shared memory of a block, as one struct per kernel. On the CPU the test shim provides it,
// filled with garbage.
#ifndef CUDA_ON_CPU
template <typename Struct> __device__ __forceinline__ Struct& block_shared() {
  __shared__ __align__(16) unsigned char bytes[sizeof(Struct)];
  return *reinterpret_cast<Struct*>(bytes);
}
#endif

// Sums and maxima over groups of 2, 4, ..., 32 neighbouring lanes. All lanes of the warp must call
// this, and each gets the result. The order of additions is always the same.
template <int LANES, typename T> __device__ __forceinline__ T group_sum(T x) {
#pragma unroll
  for (int distance = LANES / 2; distance > 0; distance /= 2)
    x += __shfl_xor_sync(ALL_LANES, x, distance);
  return x;
}

template <int LANES, typename T> __device__ __forceinline__ T group_max(T x) {
#pragma unroll
  for (int distance = LANES / 2; distance > 0; distance /= 2)
    x = larger(x, __shfl_xor_sync(ALL_LANES, x, distance));
  return x;
}

template <typename T> __device__ __forceinline__ T warp_sum(T x) { return group_sum<WARP>(x); }
template <typename T> __device__ __forceinline__ T warp_max(T x) { return group_max<WARP>(x); }

// The sum over a block of whole warps; every thread gets it. `scratch` has room for one number per
// warp.
template <typename T> __device__ __forceinline__ T block_sum(T x, T* scratch) {
  x = warp_sum(x);
  __syncthreads();  // an earlier call may still be reading `scratch`
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
  __syncthreads();
  T total = 0;
  for (int warp = 0; warp < blockDim.x / WARP; warp++) total += scratch[warp];
  return total;
}

template <typename T> __device__ __forceinline__ T block_max(T x, T* scratch) {
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
  __syncthreads();
  T result = scratch[0];
  for (int warp = 1; warp < blockDim.x / WARP; warp++) result = larger(result, scratch[warp]);
  return result;
}
