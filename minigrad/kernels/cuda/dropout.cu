#include "prelude.cuh"

// Dropout and the random masks for it; see minigrad/ops/dropout.py.

// y = x·keep·scale, for forward and backward.
template <typename real>
__global__ void __launch_bounds__(256)
    dropout_apply(const real* __restrict__ x, const bool* __restrict__ keep, real* __restrict__ y,
                  size_t size, real scale) {
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x)
    y[i] = x[i] * real(keep[i]) * scale;
}

// Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011): ten rounds that scramble a counter with a key. There is no state to keep: the random
// numbers are a function of counter and key.
struct Counter {
  unsigned word[4];
};

__device__ __forceinline__ Counter philox(Counter counter, unsigned key0, unsigned key1) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const unsigned long long left = 0xD2511F53ull * counter.word[0];
    const unsigned long long right = 0xCD9E8D57ull * counter.word[2];
    counter = {{unsigned(right >> 32) ^ counter.word[1] ^ key0, unsigned(right),
                unsigned(left >> 32) ^ counter.word[3] ^ key1, unsigned(left)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// keep[i] is true with probability 1 - p. The counter is (i/4 in two words, *step + ahead, stream),
// the key is the seed. `step` lies on the device, so that a captured graph draws new numbers at
// each replay.
__global__ void __launch_bounds__(256)
    philox_keep(bool* __restrict__ keep, const unsigned* __restrict__ step, size_t size,
                unsigned seed_low, unsigned seed_high, unsigned ahead, unsigned stream, float p) {
  const size_t group = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (group * 4 >= size) return;
  const Counter random = philox({{unsigned(group), unsigned(group >> 32), *step + ahead, stream}},
                                seed_low, seed_high);
#pragma unroll
  for (int part = 0; part < 4; part++) {
    // The upper 24 bits as a float in [0, 1); a float holds no more bits exactly.
    const float uniform = float(random.word[part] >> 8) * (1.0f / 16777216.0f);
    if (group * 4 + part < size) keep[group * 4 + part] = uniform >= p;
  }
}
