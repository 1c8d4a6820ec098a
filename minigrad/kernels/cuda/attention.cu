#include "prelude.cuh"

// Self-attention of all heads on packed queries, keys and values; the maths is in
// minigrad/ops/attention.py. The softmax is computed online, tile by tile, so that scores are never
// written to GPU memory (Milakov and Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135).
//
// The kernels read qkv (B, T, 3C) and write merged heads (B, T, C), so nothing is transposed. HEAD
// is the head size, rounded up to 16, 32, 64 or 128; channels beyond the true size count as 0.
// HEAD/16 neighbouring lanes share a query (in half of backward, a key). Each lane holds 16 numbers
// of it in registers, and a dot product ends with a sum over these lanes. The rows that are
// multiplied with (keys and values, or queries and dy) are loaded to shared memory in tiles, which
// all 128 threads of a block read.

constexpr int ATTENTION_THREADS = 128;

template <typename real> struct alignas(16) Four {
  real x[4];
};

// How the rows of one head are divided among blocks, lanes and tiles.
template <typename real, int HEAD> struct Cut {
  static constexpr int LANES = HEAD / 16;                 // lanes that share a row
  static constexpr int ROWS = ATTENTION_THREADS / LANES;  // rows of a block
  static constexpr int FITTING = 16384 / (HEAD * int(sizeof(real)));
  static constexpr int TILE = FITTING < 128 ? FITTING : 128;  // rows in shared memory, 16 KB

  struct Tile {
    Four<real> rows[TILE][HEAD / 4];
  };

  // Loads rows first, first + 1, ... of a head; zeros beyond `time` and beyond `head_size`.
  static __device__ __forceinline__ void load_tile(Tile& tile, const real* __restrict__ head,
                                                   int first, int time, int head_size,
                                                   size_t stride) {
    real* flat = &tile.rows[0][0].x[0];
    for (int i = threadIdx.x; i < TILE * HEAD; i += ATTENTION_THREADS) {
      const int row = first + i / HEAD, d = i % HEAD;
      flat[i] = row < time && d < head_size ? head[row * stride + d] : real(0);
    }
  }

  // A lane has 16 numbers of a row: four of every 4·LANES. This returns the index of such a four.
  // Neighbouring lanes then read neighbouring words of shared memory, from different banks.
  static __device__ __forceinline__ int place(int quarter, int part) {
    return quarter * LANES + part;
  }

  static __device__ __forceinline__ void load_row(Four<real> (&slice)[4],
                                                  const real* __restrict__ row, int part,
                                                  int head_size) {
#pragma unroll
    for (int quarter = 0; quarter < 4; quarter++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int d = place(quarter, part) * 4 + e;
        slice[quarter].x[e] = d < head_size ? row[d] : real(0);
      }
  }

  static __device__ __forceinline__ void store_row(real* __restrict__ row,
                                                   const Four<real> (&slice)[4], int part,
                                                   int head_size, real factor) {
#pragma unroll
    for (int quarter = 0; quarter < 4; quarter++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int d = place(quarter, part) * 4 + e;
        if (d < head_size) row[d] = slice[quarter].x[e] * factor;
      }
  }

  // The dot product with a row of a tile. All lanes that share the query get the result.
  static __device__ __forceinline__ real dot(const Four<real> (&slice)[4],
                                             const Four<real>* __restrict__ row, int part) {
    real sum = 0;
#pragma unroll
    for (int quarter = 0; quarter < 4; quarter++) {
      const Four<real> other = row[place(quarter, part)];
#pragma unroll
      for (int e = 0; e < 4; e++) sum += slice[quarter].x[e] * other.x[e];
    }
    return group_sum<LANES>(sum);
  }

  // slice += factor·row
  static __device__ __forceinline__ void add(Four<real> (&slice)[4], real factor,
                                             const Four<real>* __restrict__ row, int part) {
#pragma unroll
    for (int quarter = 0; quarter < 4; quarter++) {
      const Four<real> other = row[place(quarter, part)];
#pragma unroll
      for (int e = 0; e < 4; e++) slice[quarter].x[e] += factor * other.x[e];
    }
  }

  static __device__ __forceinline__ void clear(Four<real> (&slice)[4]) {
#pragma unroll
    for (int quarter = 0; quarter < 4; quarter++)
#pragma unroll
      for (int e = 0; e < 4; e++) slice[quarter].x[e] = 0;
  }
};

// out (B, T, C), and for backward log_sum (B, H, T) = ln Σ_keys e^score. Grid: blocks of queries,
// heads, batch.
template <typename real, int HEAD>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_forward(const real* __restrict__ qkv, real* __restrict__ out,
                      real* __restrict__ log_sum, int time, int heads, int head_size, int causal,
                      real scale) {
  using C = Cut<real, HEAD>;
  constexpr int GROUP = 8;  // keys between two corrections of the running maximum
  struct Shared {
    typename C::Tile keys, values;
  };
  Shared& shared = block_shared<Shared>();
  const int part = threadIdx.x % C::LANES;
  const int query = blockIdx.x * C::ROWS + threadIdx.x / C::LANES;
  const int row = smaller(query, time - 1);  // threads beyond the end repeat the last query
  const int warp_last = blockIdx.x * C::ROWS + (threadIdx.x / WARP + 1) * (WARP / C::LANES) - 1;
  const int block_last = smaller(int(blockIdx.x + 1) * C::ROWS, time) - 1;
  const int channels = heads * head_size;
  const size_t stride = 3 * size_t(channels);
  const int rows = 3 * time * heads;  // an int, so that all of it stays in registers
  const real* q = qkv + (size_t(blockIdx.z) * rows + blockIdx.y) * head_size;
  const real* k = q + channels;
  const real* v = k + channels;

  Four<real> mine[4], total[4];
  C::load_row(mine, q + row * stride, part, head_size);
  C::clear(total);
  real top = lowest<real>(), sum = 0;
  const int limit = causal ? row : time - 1;  // the last key that this query sees
  const int end = causal ? block_last + 1 : time;
  for (int first = 0; first < end; first += C::TILE) {
    __syncthreads();  // all threads have read the previous tile
    C::load_tile(shared.keys, k, first, time, head_size, stride);
    C::load_tile(shared.values, v, first, time, head_size, stride);
    __syncthreads();
    // The same number for the whole warp, because its lanes sum dot products together.
    const int stop = smaller(C::TILE, (causal ? smaller(warp_last + 1, time) : time) - first);
    for (int j = 0; j < stop; j += GROUP) {
      real score[GROUP];
      real new_top = top;
#pragma unroll
      for (int i = 0; i < GROUP; i++) {
        const real s = C::dot(mine, shared.keys.rows[j + i], part) * scale;
        score[i] = first + j + i <= limit ? s : lowest<real>();
        new_top = larger(new_top, score[i]);
      }
      const real correction = exp(top - new_top);
      top = new_top;
      sum *= correction;
#pragma unroll
      for (int quarter = 0; quarter < 4; quarter++)
#pragma unroll
        for (int e = 0; e < 4; e++) total[quarter].x[e] *= correction;
#pragma unroll
      for (int i = 0; i < GROUP; i++) {
        const real weight = exp(score[i] - top);
        sum += weight;
        C::add(total, weight, shared.values.rows[j + i], part);
      }
    }
  }
  if (query >= time) return;
  real* to = out + (size_t(blockIdx.z) * time + query) * channels + blockIdx.y * head_size;
  C::store_row(to, total, part, head_size, 1 / sum);
  if (part == 0) log_sum[(size_t(blockIdx.z) * heads + blockIdx.y) * time + query] = top + log(sum);
}

// delta (B, H, T) = Σ_d dy·y for each query and head, which softmax's backward subtracts. One warp
// computes one number. For heads of 16 there is no such launch: backward computes delta itself.
template <typename real>
__global__ void __launch_bounds__(256)
    attention_delta(const real* __restrict__ dy, const real* __restrict__ y,
                    real* __restrict__ delta, int rows, int time, int heads, int head_size) {
  const int index = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP;
  if (index >= rows) return;  // the whole warp
  const size_t start = size_t(index) * head_size;  // index = (b·T + t)·H + h
  real sum = 0;
  for (int d = lane; d < head_size; d += WARP) sum += dy[start + d] * y[start + d];
  sum = warp_sum(sum);
  const int head = index % heads, position = index / heads;
  if (lane == 0)
    delta[(size_t(position / time) * heads + head) * time + position % time] = sum;
}

// Up to this head size backward computes delta itself (OWN_DELTA of attention.py).
constexpr int OWN_DELTA = 16;

// The arrays of one head of one sequence that both halves of backward read.
template <typename real, int HEAD> struct Head {
  const real *q, *k, *v, *dy, *y, *log_sum, *delta;  // y or delta is null
  size_t stride, dy_stride;  // from one position to the next
  int time, head_size, causal;
  real scale;

  __device__ __forceinline__ real delta_of(int row) const {
    if constexpr (HEAD > OWN_DELTA) return delta[row];
    real sum = 0;
    for (int d = 0; d < head_size; d++) sum += dy[row * dy_stride + d] * y[row * dy_stride + d];
    return sum;
  }
};

// Two tiles in shared memory: keys and values for the blocks that compute dq; queries and dy, with
// log_sum and delta, for the blocks that compute dk and dv.
template <typename real, int HEAD> struct Tiles {
  typename Cut<real, HEAD>::Tile first, second;
  real log_sum[Cut<real, HEAD>::TILE], delta[Cut<real, HEAD>::TILE];
};

// dq of a block of queries: dS = P·(dP - delta), dq = scale·dS k. P is computed again.
template <typename real, int HEAD>
__device__ __forceinline__ void query_gradients(const Head<real, HEAD>& head,
                                                Tiles<real, HEAD>& shared,
                                                real* __restrict__ dq, int block) {
  using C = Cut<real, HEAD>;
  const int part = threadIdx.x % C::LANES;
  const int query = block * C::ROWS + threadIdx.x / C::LANES;
  const int row = smaller(query, head.time - 1);
  const int warp_last = block * C::ROWS + (threadIdx.x / WARP + 1) * (WARP / C::LANES) - 1;
  const int block_last = smaller((block + 1) * C::ROWS, head.time) - 1;

  Four<real> q[4], dy[4], total[4];
  C::load_row(q, head.q + row * head.stride, part, head.head_size);
  C::load_row(dy, head.dy + row * head.dy_stride, part, head.head_size);
  C::clear(total);
  const real normaliser = head.log_sum[row], delta = head.delta_of(row);
  const int limit = head.causal ? row : head.time - 1;
  const int end = head.causal ? block_last + 1 : head.time;
  for (int first = 0; first < end; first += C::TILE) {
    __syncthreads();
    C::load_tile(shared.first, head.k, first, head.time, head.head_size, head.stride);
    C::load_tile(shared.second, head.v, first, head.time, head.head_size, head.stride);
    __syncthreads();
    const int seen = head.causal ? smaller(warp_last + 1, head.time) : head.time;
    const int stop = smaller(C::TILE, seen - first);
    for (int j = 0; j < stop; j++) {
      const real score = C::dot(q, shared.first.rows[j], part) * head.scale;
      const real p = first + j <= limit ? exp(score - normaliser) : real(0);
      const real dp = C::dot(dy, shared.second.rows[j], part);
      C::add(total, p * (dp - delta), shared.first.rows[j], part);
    }
  }
  if (query < head.time)
    C::store_row(dq + query * head.stride, total, part, head.head_size, head.scale);
}

// dk and dv of a block of keys: dv = Pᵀ dy, dk = scale·dSᵀ q.
template <typename real, int HEAD>
__device__ __forceinline__ void key_gradients(const Head<real, HEAD>& head,
                                              Tiles<real, HEAD>& shared,
                                              real* __restrict__ dk, real* __restrict__ dv,
                                              int block) {
  using C = Cut<real, HEAD>;
  const int part = threadIdx.x % C::LANES;
  const int key = block * C::ROWS + threadIdx.x / C::LANES;
  const int row = smaller(key, head.time - 1);
  const int warp_first = block * C::ROWS + threadIdx.x / WARP * (WARP / C::LANES);

  Four<real> k[4], v[4], total_k[4], total_v[4];
  C::load_row(k, head.k + row * head.stride, part, head.head_size);
  C::load_row(v, head.v + row * head.stride, part, head.head_size);
  C::clear(total_k);
  C::clear(total_v);
  // The first tile with a query that attends to one of the block's keys.
  const int start = head.causal ? block * C::ROWS / C::TILE * C::TILE : 0;
  for (int first = start; first < head.time; first += C::TILE) {
    __syncthreads();
    C::load_tile(shared.first, head.q, first, head.time, head.head_size, head.stride);
    C::load_tile(shared.second, head.dy, first, head.time, head.head_size, head.dy_stride);
    for (int i = threadIdx.x; i < C::TILE; i += ATTENTION_THREADS) {
      const bool inside = first + i < head.time;
      shared.log_sum[i] = inside ? head.log_sum[first + i] : 0;
      shared.delta[i] = inside ? head.delta_of(first + i) : 0;
    }
    __syncthreads();
    const int stop = smaller(C::TILE, head.time - first);
    for (int i = head.causal ? larger(0, warp_first - first) : 0; i < stop; i++) {
      const real score = C::dot(k, shared.first.rows[i], part) * head.scale;
      const bool sees = !head.causal || first + i >= row;
      const real p = sees ? exp(score - shared.log_sum[i]) : real(0);
      C::add(total_v, p, shared.second.rows[i], part);
      const real dp = C::dot(v, shared.second.rows[i], part);
      C::add(total_k, p * (dp - shared.delta[i]), shared.first.rows[i], part);
    }
  }
  if (key >= head.time) return;
  C::store_row(dk + key * head.stride, total_k, part, head.head_size, head.scale);
  C::store_row(dv + key * head.stride, total_v, part, head.head_size, real(1));
}

// dqkv (B, T, 3C). Grid: twice the blocks of rows, heads, batch. The first half of the blocks
// computes dq, the second dk and dv. Every element is written once, without atomics. Either `y`,
// the result of forward, or `delta` is null.
template <typename real, int HEAD>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_backward(const real* __restrict__ qkv, const real* __restrict__ dy,
                       const real* __restrict__ y, const real* __restrict__ log_sum,
                       const real* __restrict__ delta, real* __restrict__ dqkv, int time, int heads,
                       int head_size, int causal, real scale) {
  const int channels = heads * head_size;
  const size_t stride = 3 * size_t(channels);
  const size_t start = size_t(blockIdx.z) * time * stride + blockIdx.y * head_size;
  const size_t statistics = (size_t(blockIdx.z) * heads + blockIdx.y) * time;
  const size_t merged = size_t(blockIdx.z) * time * channels + blockIdx.y * head_size;
  const Head<real, HEAD> head = {
      qkv + start,
      qkv + start + channels,
      qkv + start + 2 * channels,
      dy + merged,
      HEAD > OWN_DELTA ? nullptr : y + merged,
      log_sum + statistics,
      HEAD > OWN_DELTA ? delta + statistics : nullptr,
      stride,
      size_t(channels),
      time,
      head_size,
      causal,
      scale,
  };
  Tiles<real, HEAD>& shared = block_shared<Tiles<real, HEAD>>();
  const int half = gridDim.x / 2;
  if (blockIdx.x < half)
    query_gradients<real, HEAD>(head, shared, dqkv + start, blockIdx.x);
  else
    key_gradients<real, HEAD>(head, shared, dqkv + start + channels, dqkv + start + 2 * channels,
                              blockIdx.x - half);
}
