#include "prelude.cuh"

// Embedding: rows of a table, by id; see minigrad/ops/embedding.py.

// y[i] = W[ids[i]], a thread an element. An id outside of the table gives NaN, not other memory.
template <typename real, typename id_type>
__global__ void __launch_bounds__(256) embedding_forward(
    const real* __restrict__ weight, const id_type* __restrict__ ids, real* __restrict__ y,
    int positions, int channels, int vocabulary) {
  const size_t size = size_t(positions) * channels;
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x) {
    const id_type id = ids[i / channels];
    const bool inside = id >= 0 && id < vocabulary;
    y[i] = inside ? weight[size_t(id) * channels + i % channels] : real(0) / real(0);
  }
}

// dW[v] = Σ dy[i] over the positions i of id v. dW is zeroed before.
//
// A block of 8 warps is a position and 32 channels. Only the block at the first position of an id
// goes on: it looks for all others and adds up their rows. Frequent ids are found early, so the
// search is short where it is of no use. No atomics: each sum has one owner and one order.
template <typename real, typename id_type>
__global__ void __launch_bounds__(256) embedding_backward(
    const real* __restrict__ dy, const id_type* __restrict__ ids, real* __restrict__ dweight,
    int positions, int channels, int vocabulary) {
  struct Shared {
    real sums[8][WARP];
  };
  Shared& shared = block_shared<Shared>();
  const int here = blockIdx.x, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int channel = blockIdx.y * WARP + lane;
  const id_type id = ids[here];
  if (id < 0 || id >= vocabulary) return;  // the whole block

  for (int start = 0; start < here; start += blockDim.x) {
    const int i = start + threadIdx.x;
    if (__syncthreads_or(i < here && ids[i] == id)) return;  // all threads, or none
  }

  real sum = 0;
  for (int start = here + warp * WARP; start < positions; start += 8 * WARP) {
    const int mine = start + lane;
    unsigned matches = __ballot_sync(ALL_LANES, mine < positions && ids[mine] == id);
    while (matches) {
      const int i = start + __ffs(matches) - 1;
      matches &= matches - 1;
      if (channel < channels) sum += dy[size_t(i) * channels + channel];
    }
  }
  shared.sums[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && channel < channels) {
    real total = 0;
    for (int part = 0; part < 8; part++) total += shared.sums[part][lane];
    dweight[size_t(id) * channels + channel] = total;
  }
}
