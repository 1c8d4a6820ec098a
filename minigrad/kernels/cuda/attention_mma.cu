#include "prelude.cuh"
#include "tensor_cores.cuh"
#include "attention_rows.cuh"
#include "attention_tiles.cuh"

// Self-attention of all heads as in attention.cu, with matmuls on tensor cores; after Dao,
// FlashAttention-2, arXiv:2307.08691. A block computes several rows of one head (queries or keys),
// each warp 16 of them (32 in forward with heads of 64). It reads the rows of the other side (keys
// or queries) in tiles.

template <int HEAD> struct Plan {
  static constexpr int M = HEAD == 64 ? 2 : 1;  // in forward a warp has 16·M queries
  static constexpr int ROWS = HEAD < 64 ? 64 : 128;  // rows of a block
  static constexpr int THREADS = ROWS / (16 * M) * WARP, BACK_THREADS = ROWS / 16 * WARP;
  // Rows of a tile; as scores these are N times the 8 columns of an mma.
  static constexpr int TILE = 32, N = TILE / 8;
  static constexpr int BACK_TILE = HEAD > 64 ? 16 : 32, BACK_N = BACK_TILE / 8;
  static constexpr bool KEPT = HEAD <= 64;  // whether backward keeps a warp's own rows in registers
  // Whether backward computes delta itself. With larger heads there are too few registers for that.
  static constexpr bool OWN_DELTA = HEAD == 16;
  using Fetch = Fetched<HEAD, TILE, THREADS>;
  using BackFetch = Fetched<HEAD, BACK_TILE, BACK_THREADS>;
};

constexpr float LOG2_E = 1.4426950408889634f;

// The last key that a query attends to.
__device__ __forceinline__ int last_key(int query, int time, int causal) {
  return causal ? query : time - 1;
}

// One tile of the online softmax: s becomes 2^(scale·(s - top)), where top is the maximum so far.
// The sums so far, which are relative to the previous maximum, are rescaled. `sum` is over this
// lane's columns only.
template <int HEAD, int N>
__device__ __forceinline__ void soften(float (&s)[N][4], float (&total)[HEAD / 8][4],
                                       float (&top)[2], float (&sum)[2], float scale) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float new_top = top[half];
#pragma unroll
    for (int n = 0; n < N; n++)
      new_top = larger(new_top, larger(s[n][2 * half], s[n][2 * half + 1]));
    new_top = group_max<4>(new_top);
    const float correction = power_of_two((top[half] - new_top) * scale);
    top[half] = new_top;
    sum[half] *= correction;
#pragma unroll
    for (int n = 0; n < HEAD / 8; n++)
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; e++) total[n][e] *= correction;
    const float shift = new_top * scale;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; e++) {
        s[n][e] = power_of_two(s[n][e] * scale - shift);
        sum[half] += s[n][e];
      }
  }
}

// Sets scores to the lowest number where `sees(row, column)` is false. Rows are counted from the
// warp's first row, columns from the tile's first.
template <typename Factors, int N, typename Sees>
__device__ __forceinline__ void hide(float (&s)[N][4], const Sees& sees) {
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int column = 8 * n + Columns<Factors>::row_of(2 * lane_within() + e % 2);
      if (!sees(lane_group() + e / 2 * 8, column)) s[n][e] = lowest<float>();
    }
}

// Masks the keys that a query does not attend to. s has the scores of queries `query`, query + 1,
// ... and of keys `key`, key + 1, ...
template <typename Factors, int N>
__device__ __forceinline__ void hide_keys(float (&s)[N][4], int query, int key, int time,
                                          int causal) {
  if (key + 8 * N - 1 <= last_key(query, time, causal)) return;  // nothing to mask
  hide<Factors>(s, [&](int row, int column) {
    return key + column <= last_key(query + row, time, causal);
  });
}

// The same with keys as rows. Queries beyond the last are masked too.
template <typename Factors, int N>
__device__ __forceinline__ void hide_queries(float (&s)[N][4], int query, int key, int time,
                                             int causal) {
  if (query + 8 * N <= time && key + 15 <= last_key(query, time, causal)) return;
  hide<Factors>(s, [&](int row, int column) {
    return query + column < time && key + row <= last_key(query + column, time, causal);
  });
}

// out (B, T, C) and log_sum (B, H, T) as in attention.cu. Grid: blocks of queries, heads, batch.
// The last queries come first, because they take longest.
template <typename Factors, int HEAD>
__global__ void __launch_bounds__(Plan<HEAD>::THREADS)
    attention_forward_mma(const float* __restrict__ qkv, float* __restrict__ out,
                          float* __restrict__ log_sum, int time, int heads, int head_size,
                          int causal, float scale) {
  using P = Plan<HEAD>;
  constexpr int M = P::M, N = P::N;
  struct Tiles {
    MmaTile<Factors, HEAD, P::TILE, DOTS> keys;
    MmaTile<Factors, HEAD, P::TILE, MIXTURES> values;
  };
  auto& places = block_shared<Places<Tiles>>();
  const int channels = heads * head_size;
  const size_t stride = 3 * size_t(channels);
  const bool aligned = in_fours(qkv, out, head_size);
  const float* start = qkv + size_t(blockIdx.z) * time * stride + blockIdx.y * head_size;
  const HeadRows queries = {start, stride, time, head_size, aligned};
  const HeadRows keys = {start + channels, stride, time, head_size, aligned};
  const HeadRows values = {start + 2 * channels, stride, time, head_size, aligned};
  const int block_first = int(gridDim.x - 1 - blockIdx.x) * P::ROWS;
  const int query = block_first + warp_number() * 16 * M;  // the warp's first
  const int seen = query >= time ? 0 : causal ? query + 16 * M : time;  // needs keys below this

  OwnRows<Factors, HEAD, true> q[M];
#pragma unroll
  for (int m = 0; m < M; m++) q[m].begin(queries, query + 16 * m);
  float total[M][HEAD / 8][4] = {}, sum[M][2] = {}, top[M][2];
#pragma unroll
  for (int m = 0; m < M; m++) top[m][0] = top[m][1] = lowest<float>();

  typename P::Fetch next_keys, next_values;
  through_tiles<P::TILE>(
      places, 0, causal ? smaller(block_first + P::ROWS, time) : time,
      [&](int first) {
        next_keys.fetch(keys, first);
        next_values.fetch(values, first);
      },
      [&](Tiles& tiles) {
        tiles.keys.put(next_keys);
        tiles.values.put(next_values);
      },
      [&](Tiles& tiles, int first) {
        if (first >= seen) return;
        float s[M][N][4] = {};
        add_dots<Factors>(s, q, tiles.keys);
#pragma unroll
        for (int m = 0; m < M; m++) {
          hide_keys<Factors>(s[m], query + 16 * m, first, time, causal);
          soften<HEAD>(s[m], total[m], top[m], sum[m], scale * LOG2_E);
        }
        add_mixtures<Factors, HEAD>(total, s, tiles.values);
      });
#pragma unroll
  for (int m = 0; m < M; m++) {
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float whole = group_sum<4>(sum[m][half]);
      const int row = query + 16 * m + lane_group() + 8 * half;
      inverse[half] = 1 / whole;
      if (lane_within() == 0 && row < time)
        log_sum[(size_t(blockIdx.z) * heads + blockIdx.y) * time + row] =
            top[m][half] * scale + log(whole);
    }
    write_rows<HEAD>(out + size_t(blockIdx.z) * time * channels + blockIdx.y * head_size, channels,
                     query + 16 * m, time, head_size, aligned, total[m], inverse);
  }
}

// The arrays of one head of one sequence that both halves of backward read.
struct HeadOfBackward {
  HeadRows q, k, v, dy, y;
  const float *__restrict__ log_sum, *__restrict__ delta;
  int causal;
  float scale;
};

__device__ __forceinline__ float dot_of(const FourFloats& a, const FourFloats& b) {
  return a.x[0] * b.x[0] + a.x[1] * b.x[1] + a.x[2] * b.x[2] + a.x[3] * b.x[3];
}

// dq of a block of queries: dS = P·(dP - delta), dq = scale·dS k. P is computed again.
template <typename Factors, int HEAD> struct KeyTiles {
  MmaTile<Factors, HEAD, Plan<HEAD>::BACK_TILE, DOTS | MIXTURES> k;
  MmaTile<Factors, HEAD, Plan<HEAD>::BACK_TILE, DOTS> v;
};

template <typename Factors, int HEAD>
__device__ __forceinline__ void query_gradients_mma(const HeadOfBackward& head,
                                                    Places<KeyTiles<Factors, HEAD>>& places,
                                                    float* __restrict__ dq, int block) {
  using P = Plan<HEAD>;
  constexpr int N = P::BACK_N;
  const int time = head.q.time, query = block * P::ROWS + warp_number() * 16;
  const int seen = query >= time ? 0 : head.causal ? query + 16 : time;

  OwnRows<Factors, HEAD, P::KEPT> q[1], dy[1];
  q[0].begin(head.q, query);
  dy[0].begin(head.dy, query);
  float total[1][HEAD / 8][4] = {}, log_sum[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = smaller(query + lane_group() + 8 * half, time - 1);
    log_sum[half] = head.log_sum[row] * LOG2_E;
    if constexpr (P::OWN_DELTA)
      delta[half] = group_sum<4>(
          dot_of(head.dy.four(row, 4 * lane_within()), head.y.four(row, 4 * lane_within())));
    else
      delta[half] = head.delta[row];
  }
  typename P::BackFetch next_k, next_v;
  through_tiles<P::BACK_TILE>(
      places, 0, head.causal ? smaller((block + 1) * P::ROWS, time) : time,
      [&](int first) {
        next_k.fetch(head.k, first);
        next_v.fetch(head.v, first);
      },
      [&](KeyTiles<Factors, HEAD>& tiles) {
        tiles.k.put(next_k);
        tiles.v.put(next_v);
      },
      [&](KeyTiles<Factors, HEAD>& tiles, int first) {
        if (first >= seen) return;
        float s[1][N][4] = {}, dp[1][N][4] = {};
        add_dots<Factors>(s, q, tiles.k);
        add_dots<Factors>(dp, dy, tiles.v);
        hide_keys<Factors>(s[0], query, first, time, head.causal);
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
          for (int e = 0; e < 4; e++) {
            const float p = power_of_two(s[0][n][e] * (head.scale * LOG2_E) - log_sum[e / 2]);
            s[0][n][e] = p * (dp[0][n][e] - delta[e / 2]);
          }
        add_mixtures<Factors, HEAD>(total, s, tiles.k);
      });
  write_rows<HEAD>(dq, head.q.stride, query, time, head.q.size, head.q.aligned, total[0],
                   {head.scale, head.scale});
}

// dk and dv of a block of keys: dv = Pᵀ dy, dk = scale·dSᵀ q. Keys are rows here, queries columns.
template <typename Factors, int HEAD> struct QueryTiles {
  MmaTile<Factors, HEAD, Plan<HEAD>::BACK_TILE, DOTS | MIXTURES> q, dy;
  float log_sum[Plan<HEAD>::BACK_TILE], delta[Plan<HEAD>::BACK_TILE];
};

// Computes the deltas of a tile from registers: HEAD/4 neighbouring lanes have a row of dy and y.
template <int HEAD, int ROWS, int THREADS>
__device__ __forceinline__ void put_deltas(float (&delta)[ROWS],
                                           const Fetched<HEAD, ROWS, THREADS>& dy,
                                           const Fetched<HEAD, ROWS, THREADS>& y) {
#pragma unroll
  for (int i = 0; i < dy.EACH; i++) {
    const bool has = dy.has(i);  // the same for all lanes of a row
    const float upper = group_sum<HEAD / 4>(has ? dot_of(dy.upper[i], y.upper[i]) : 0);
    const float lower = group_sum<HEAD / 4>(has ? dot_of(dy.lower[i], y.lower[i]) : 0);
    if (has && dy.channel_of(i) == 0) {
      delta[2 * dy.pair_of(i)] = upper;
      delta[2 * dy.pair_of(i) + 1] = lower;
    }
  }
}

template <typename Factors, int HEAD>
__device__ __forceinline__ void key_gradients_mma(const HeadOfBackward& head,
                                                  Places<QueryTiles<Factors, HEAD>>& places,
                                                  float* __restrict__ dk, float* __restrict__ dv,
                                                  int block) {
  using P = Plan<HEAD>;
  constexpr int N = P::BACK_N;
  const int time = head.q.time, key = block * P::ROWS + warp_number() * 16;

  OwnRows<Factors, HEAD, P::KEPT> k[1], v[1];
  k[0].begin(head.k, key);
  v[0].begin(head.v, key);
  float total_k[1][HEAD / 8][4] = {}, total_v[1][HEAD / 8][4] = {};
  typename P::BackFetch next_q, next_dy, next_y;  // next_y only if delta is computed here
  float next_log_sum = 0, next_delta = 0;
  through_tiles<P::BACK_TILE>(
      places, head.causal ? block * P::ROWS : 0, time,  // from the first query that sees a key
      [&](int first) {
        next_q.fetch(head.q, first);
        next_dy.fetch(head.dy, first);
        if constexpr (P::OWN_DELTA) next_y.fetch(head.y, first);
        if (threadIdx.x < P::BACK_TILE) {
          const int row = smaller(first + int(threadIdx.x), time - 1);
          next_log_sum = head.log_sum[row];
          if constexpr (!P::OWN_DELTA) next_delta = head.delta[row];
        }
      },
      [&](QueryTiles<Factors, HEAD>& tiles) {
        tiles.q.put(next_q);
        tiles.dy.put(next_dy);
        if (threadIdx.x < P::BACK_TILE) {
          tiles.log_sum[threadIdx.x] = next_log_sum * LOG2_E;
          if constexpr (!P::OWN_DELTA) tiles.delta[threadIdx.x] = next_delta;
        }
        if constexpr (P::OWN_DELTA) put_deltas(tiles.delta, next_dy, next_y);
      },
      [&](QueryTiles<Factors, HEAD>& tiles, int first) {
        const bool none = head.causal && first + P::BACK_TILE - 1 < key;
        if (none || key >= time) return;
        float s[1][N][4] = {}, dp[1][N][4] = {};
        add_dots<Factors>(s, k, tiles.q);
        add_dots<Factors>(dp, v, tiles.dy);
        hide_queries<Factors>(s[0], first, key, time, head.causal);
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
          for (int e = 0; e < 4; e++) {
            const int column = 8 * n + Columns<Factors>::row_of(2 * lane_within() + e % 2);
            const float x = s[0][n][e] * (head.scale * LOG2_E) - tiles.log_sum[column];
            const float p = power_of_two(x);
            s[0][n][e] = p;
            dp[0][n][e] = p * (dp[0][n][e] - tiles.delta[column]);
          }
        add_mixtures<Factors, HEAD>(total_v, s, tiles.dy);
        add_mixtures<Factors, HEAD>(total_k, dp, tiles.q);
      });
  write_rows<HEAD>(dk, head.k.stride, key, time, head.k.size, head.k.aligned, total_k[0],
                   {head.scale, head.scale});
  write_rows<HEAD>(dv, head.k.stride, key, time, head.k.size, head.k.aligned, total_v[0], {1, 1});
}

// A block computes one of the two halves, so they share memory.
template <typename Factors, int HEAD> union BackwardTiles {
  Places<KeyTiles<Factors, HEAD>> keys;
  Places<QueryTiles<Factors, HEAD>> queries;
};

// dqkv (B, T, 3C). Grid: twice the blocks of rows, heads, batch. The first half of the blocks
// computes dk and dv, the second dq; those that take longest come first. Every element is written
// once, without atomics. With heads of 16 this kernel computes delta from `y`, the result of
// forward, and `delta` is null. With larger heads `delta` is the result of attention_delta, and `y`
// is null.
template <typename Factors, int HEAD>
__global__ void __launch_bounds__(Plan<HEAD>::BACK_THREADS)
    attention_backward_mma(const float* __restrict__ qkv, const float* __restrict__ dy,
                           const float* __restrict__ y, const float* __restrict__ log_sum,
                           const float* __restrict__ delta, float* __restrict__ dqkv, int time,
                           int heads, int head_size, int causal, float scale) {
  const int channels = heads * head_size;
  const size_t stride = 3 * size_t(channels);
  const size_t start = size_t(blockIdx.z) * time * stride + blockIdx.y * head_size;
  const size_t statistics = (size_t(blockIdx.z) * heads + blockIdx.y) * time;
  const size_t merged = size_t(blockIdx.z) * time * channels + blockIdx.y * head_size;
  const bool aligned = in_fours(qkv, dqkv, head_size) && in_fours(y, dy, head_size);
  const HeadOfBackward head = {
      {qkv + start, stride, time, head_size, aligned},
      {qkv + start + channels, stride, time, head_size, aligned},
      {qkv + start + 2 * channels, stride, time, head_size, aligned},
      {dy + merged, size_t(channels), time, head_size, aligned},
      {y ? y + merged : nullptr, size_t(channels), time, head_size, aligned},
      log_sum + statistics,
      delta ? delta + statistics : nullptr,
      causal,
      scale,
  };
  auto& tiles = block_shared<BackwardTiles<Factors, HEAD>>();
  const int half = gridDim.x / 2;
  if (blockIdx.x < half)
    key_gradients_mma(head, tiles.queries, dqkv + start + channels, dqkv + start + 2 * channels,
                      blockIdx.x);
  else
    query_gradients_mma(head, tiles.keys, dqkv + start, gridDim.x - 1 - blockIdx.x);
}
