#pragma once

// Functions that the kernels of generation share.

// The activations of minigrad/ops/activations.py, numbered as in ACTIVATIONS of decode.py.
template <typename real> __device__ __forceinline__ real decode_activated(real z, int activation) {
  if (activation == 1) return z < 0 ? 0 : z;
  if (activation == 2) return real(0.5) * z * (1 + erf(z * real(0.70710678118654752440)));
  if (activation == 3) {
    const real inner = real(0.79788456080286535588) * (z + real(0.044715) * z * z * z);
    return real(0.5) * z * (1 + tanh(inner));
  }
  if (activation == 4) return z / (1 + exp(-z));
  return z;
}

// Sums over a warp, where each lane has ROWS numbers. A lane gets the sum of row lane/(32/ROWS):
// after each exchange it continues with half of the rows. The order of additions is that of
// warp_sum.
template <int ROWS, typename real>
__device__ __forceinline__ real decode_warp_sums(real (&x)[ROWS]) {
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    const int left = ROWS * distance / WARP;  // rows to continue with; 0: there is only one
    if (left == 0) {
      x[0] += __shfl_xor_sync(ALL_LANES, x[0], distance);
      continue;
    }
    const bool upper = lane & distance;
#pragma unroll
    for (int i = 0; i < left; i++) {
      const real given = upper ? x[i] : x[i + left], kept = upper ? x[i + left] : x[i];
      x[i] = kept + __shfl_xor_sync(ALL_LANES, given, distance);
    }
  }
  return x[0];
}

// One head of one row: its query, key and value, and the cached keys (D, S) and values (S, D) of
// its sequence.
template <typename real> struct DecodeHead {
  real *q, *k, *v, *keys, *values;
  int place, room, size;
};

template <typename real>
__device__ __forceinline__ DecodeHead<real> decode_head(real* qkv, real* keys, real* values,
                                                        const int* slots, const int* places,
                                                        int room, int size, int row, int head,
                                                        int heads) {
  const size_t channels = size_t(heads) * size;
  real* q = qkv + row * 3 * channels + size_t(head) * size;
  const size_t kept = (size_t(slots[row]) * heads + head) * room * size;
  return {q, q + channels, q + 2 * channels, keys + kept, values + kept, places[row], room, size};
}

// Rotates query and key by their position, and writes key and value to the cache. Elements 2i and
// 2i + 1 are rotated by angle i, whose cosine and sine are neighbours in `rotation` (L, D).
// `rotation` may be null.
template <typename real>
__device__ __forceinline__ void decode_keep(const DecodeHead<real>& h,
                                            const real* __restrict__ rotation, int thread,
                                            int threads) {
  for (int d = thread; d < h.size; d += threads) {
    h.values[size_t(h.place) * h.size + d] = h.v[d];
    if (!rotation) h.keys[size_t(d) * h.room + h.place] = h.k[d];
  }
  if (!rotation) return;
  const real* turns = rotation + size_t(h.place) * h.size;
  for (int d = 2 * thread; d < h.size; d += 2 * threads) {
    const real cosine = turns[d], sine = turns[d + 1];
    const real q = h.q[d], k = h.k[d];
    h.q[d] = q * cosine - h.q[d + 1] * sine;
    h.q[d + 1] = h.q[d + 1] * cosine + q * sine;
    h.keys[size_t(d) * h.room + h.place] = k * cosine - h.k[d + 1] * sine;
    h.keys[size_t(d + 1) * h.room + h.place] = h.k[d + 1] * cosine + k * sine;
  }
}
