#include "prelude.cuh"

// Embedding: the row of a table for each id, plus optionally the row of another table for its
// position; see minigrad/ops/embedding.py.

// y[i] = W[ids[i]] + P[i % time]; each thread computes single elements. P (`places`) may be null.
// An id outside of the table gives NaN; nothing outside of the table is read.
template <typename real, typename id_type>
__global__ void __launch_bounds__(256) embedding_forward(
    const real* __restrict__ weight, const real* __restrict__ places,
    const id_type* __restrict__ ids, real* __restrict__ y, int positions, int channels,
    int vocabulary, int time) {
  const size_t size = size_t(positions) * channels;
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x) {
    const size_t position = i / channels, channel = i % channels;
    const id_type id = ids[position];
    const bool inside = id >= 0 && id < vocabulary;
    const real value = inside ? weight[size_t(id) * channels + channel] : real(0) / real(0);
    y[i] = places ? value + places[position % time * channels + channel] : value;
  }
}

constexpr int EMBEDDING_WARPS = 8, AHEAD = 4, EACH = 4;  // rows loaded at once, channels of a lane

template <typename real> struct EmbeddingSums {
  real parts[EMBEDDING_WARPS][EACH * WARP];
};

// Adds the rows `at` of dy to sum. All of them are loaded before the first is added, so that their
// loads overlap. An entry of -1 stands for no row.
template <typename real>
__device__ __forceinline__ void add_rows(real (&sum)[EACH], const int (&at)[AHEAD],
                                         const real* __restrict__ dy, int channels, int channel) {
  real rows[AHEAD][EACH];
#pragma unroll
  for (int k = 0; k < AHEAD; k++)
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int c = channel + e * WARP;
      rows[k][e] = at[k] >= 0 && c < channels ? dy[size_t(at[k]) * channels + c] : 0;
    }
#pragma unroll
  for (int k = 0; k < AHEAD; k++)
#pragma unroll
    for (int e = 0; e < EACH; e++) sum[e] += rows[k][e];
}

// Adds up the partial sums of all warps and writes them to channels `first`, first + 1, ... of a
// row.
template <typename real>
__device__ __forceinline__ void write_sums(EmbeddingSums<real>& shared, const real (&sum)[EACH],
                                           real* __restrict__ row, int channels, int first) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
  for (int e = 0; e < EACH; e++) shared.parts[warp][e * WARP + lane] = sum[e];
  __syncthreads();  // all partial sums are written
  const int c = threadIdx.x;
  if (c < EACH * WARP && first + c < channels) {
    real total = 0;
    for (int part = 0; part < EMBEDDING_WARPS; part++) total += shared.parts[part][c];
    row[first + c] = total;
  }
  __syncthreads();  // all have been read, so `parts` may be overwritten
}

// row = Σ dy[i] over the positions i >= first of an id. Of the groups of 32 positions, each warp
// searches every eighth. There are no atomics: one block computes each sum, in a fixed order.
template <typename real, typename id_type>
__device__ __forceinline__ void sum_of_id(EmbeddingSums<real>& shared, const real* __restrict__ dy,
                                          const id_type* __restrict__ ids, id_type id,
                                          real* __restrict__ row, int first, int positions,
                                          int channels) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  for (int channel = 0; channel < channels; channel += EACH * WARP) {
    real sum[EACH] = {};
    for (int start = first + warp * WARP; start < positions; start += EMBEDDING_WARPS * WARP) {
      const int mine = start + lane;
      unsigned matches = __ballot_sync(ALL_LANES, mine < positions && ids[mine] == id);
      while (matches) {
        int at[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
          at[k] = matches ? start + __ffs(matches) - 1 : -1;
          matches &= matches - 1;
        }
        add_rows(sum, at, dy, channels, channel + lane);
      }
    }
    write_sums(shared, sum, row, channels, channel);
  }
}

// dW[v] = Σ dy[i] over the positions i of id v, and dP[t] = Σ dy over the sequences at position t.
// The first blocks compute one row of dW each, the others one row of dP each; dW or dP may be null.
// Every element is written, zeros for ids that do not occur. This is for tables with few rows,
// because each block reads all ids.
template <typename real, typename id_type>
__global__ void __launch_bounds__(256) embedding_backward_rows(
    const real* __restrict__ dy, const id_type* __restrict__ ids, real* __restrict__ dweight,
    real* __restrict__ dplaces, int positions, int channels, int vocabulary, int time) {
  auto& shared = block_shared<EmbeddingSums<real>>();
  const int rows = dweight ? vocabulary : 0;
  const int block = blockIdx.x;
  if (block < rows) {
    sum_of_id<real, id_type>(shared, dy, ids, block, dweight + size_t(block) * channels, 0,
                             positions, channels);
    return;
  }
  const int place = block - rows, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int sequences = place < time ? positions / time : 0;
  for (int channel = 0; channel < channels; channel += EACH * WARP) {
    real sum[EACH] = {};
    for (int first = warp; first < sequences; first += AHEAD * EMBEDDING_WARPS) {
      int at[AHEAD];
#pragma unroll
      for (int k = 0; k < AHEAD; k++) {
        const int sequence = first + k * EMBEDDING_WARPS;
        at[k] = sequence < sequences ? sequence * time + place : -1;
      }
      add_rows(sum, at, dy, channels, channel + lane);
    }
    write_sums(shared, sum, dplaces + size_t(place) * channels, channels, channel);
  }
}

// dW alone, for tables with many rows; dW must be zeroed before. There is one block per position.
// It first searches the positions before its own for the same id, and returns if it finds one.
// Otherwise it sums the row of that id. For frequent ids the search ends early, because they occur
// early.
template <typename real, typename id_type>
__global__ void __launch_bounds__(256) embedding_backward(
    const real* __restrict__ dy, const id_type* __restrict__ ids, real* __restrict__ dweight,
    int positions, int channels, int vocabulary) {
  const int here = blockIdx.x;
  const id_type id = ids[here];
  if (id < 0 || id >= vocabulary) return;  // the whole block

  for (int start = 0; start < here; start += blockDim.x) {
    const int i = start + threadIdx.x;
    if (__syncthreads_or(i < here && ids[i] == id)) return;  // all threads, or none
  }
  sum_of_id<real, id_type>(block_shared<EmbeddingSums<real>>(), dy, ids, id,
                           dweight + size_t(id) * channels, here, positions, channels);
}
