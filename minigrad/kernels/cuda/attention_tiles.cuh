#pragma once

// The matmuls of attention on tensor cores. Forward and backward need two kinds. Each multiplies
// 16·M rows of a warp with a tile of the other side's rows. The tile lies in shared memory,
// rounded, as words of PACK numbers each:
//
//   dots      s[r][c] += Σ_d own[r][d]·tile[c][d]      scores; the gradient of P
//   mixtures  y[r][d] += Σ_c s[r][c]·tile[c][d]        outputs; the gradients of q, k and v
//
// Both sum in steps of 8 words, by mma with lane = 4g + t (see tensor_cores.cuh). The order of the
// terms may be chosen, if both operands have the same one; so may the order of the result's
// columns. This is used three times:
//
// - Dots sum over channels. Of every 4·WIDE words, lane t has the WIDE words from t·WIDE on. So its
//   words are neighbours, and where a row is long enough it reads 16 bytes by one load.
// - Mixtures have channels as columns. Their order is such that the words a lane needs for WIDE mma
//   are neighbours, and so are the 2·WIDE sums that it stores in the end.
// - Dots give a lane columns 2t and 2t+1 of each 8; as operand of mixtures it needs words t and
//   t+4. For bfloat16 a word holds two columns, so 16 columns are the 8 words without any change.
//   For TF32 column 2t is used as word t and column 2t+1 as word t+4. `row_of` says which row of
//   the tile a column stands for, in dots and in mixtures. So nothing moves between lanes.

__device__ __forceinline__ int lane_group() { return threadIdx.x % WARP / 4; }
__device__ __forceinline__ int lane_within() { return threadIdx.x % 4; }
__device__ __forceinline__ int warp_number() { return threadIdx.x / WARP; }

// Which row of a tile a column of s stands for, and s as the left operand of mixtures.
template <typename Factors> struct Columns;

template <> struct Columns<Tf32> {
  // Rows 0, 6, 1, 7, 2, 4, 3, 5. Rows are an odd multiple of 8 words apart. With this order there
  // are no bank conflicts: neither in dots, where lanes read two rows at once (of columns 2i,
  // 2i+1), nor in mixtures, where they read four (0...3 or 4...7).
  static __device__ __forceinline__ int row_of(int column) {
    return column % 2 ? 4 + (column / 2 ^ 2) : column / 2;
  }
  static __device__ __forceinline__ int second_row(int t) { return row_of(2 * t + 1); }
  static __device__ __forceinline__ void operand(unsigned (&a)[4], const float (*s)[4]) {
    a[0] = to_tf32(s[0][0]);
    a[1] = to_tf32(s[0][2]);
    a[2] = to_tf32(s[0][1]);
    a[3] = to_tf32(s[0][3]);
  }
};

template <> struct Columns<Bf16> {
  static __device__ __forceinline__ int row_of(int column) { return column; }
  static __device__ __forceinline__ int second_row(int t) { return t + 4; }  // of pairs
  static __device__ __forceinline__ void operand(unsigned (&a)[4], const float (*s)[4]) {
    a[0] = to_bf16_pair(s[0][0], s[0][1]);
    a[1] = to_bf16_pair(s[0][2], s[0][3]);
    a[2] = to_bf16_pair(s[1][0], s[1][1]);
    a[3] = to_bf16_pair(s[1][2], s[1][3]);
  }
};

template <int COUNT> struct alignas(4 * COUNT) Words {
  unsigned x[COUNT];
};

constexpr int DOTS = 1, MIXTURES = 2;  // what a tile is for

// A tile in shared memory. For TF32 one array serves dots and mixtures. For bfloat16 there are two:
// a word holds two channels of one row for dots, two rows of one channel for mixtures.
template <typename Factors, int HEAD, int ROWS, int USE> struct MmaTile {
  static constexpr bool PAIRS = Factors::PACK == 2;
  static constexpr int WIDE_DOTS = HEAD / Factors::PACK < 16 ? 2 : 4;  // words of a load
  static constexpr int WIDE_MIXTURES = HEAD < 32 ? 2 : 4;
  // Strides between rows that avoid bank conflicts.
  static constexpr int MIXTURE_STRIDE = HEAD + 8;
  static constexpr int DOT_STRIDE = !PAIRS ? HEAD + 8 : HEAD < 64 ? HEAD / 2 : HEAD / 2 + 16;
  static constexpr int DOT_WORDS = USE & DOTS ? ROWS * DOT_STRIDE : 0;
  static constexpr int MIXTURE_WORDS = USE & MIXTURES ? ROWS / 2 * MIXTURE_STRIDE : 0;
  unsigned words[PAIRS ? DOT_WORDS + MIXTURE_WORDS : ROWS * MIXTURE_STRIDE];

  __device__ __forceinline__ unsigned* dot_row(int row) { return words + row * DOT_STRIDE; }
  __device__ __forceinline__ unsigned* mixture_row(int row_of_words) {
    return words + (PAIRS ? DOT_WORDS : 0) + row_of_words * MIXTURE_STRIDE;
  }

  template <int THREADS>
  __device__ __forceinline__ void put(const Fetched<HEAD, ROWS, THREADS>& from) {
#pragma unroll
    for (int i = 0; i < from.EACH; i++) {
      if (!from.has(i)) continue;
      const int pair = from.pair_of(i), channel = from.channel_of(i);
      const FourFloats &upper = from.upper[i], &lower = from.lower[i];
      if constexpr (!PAIRS) {
        *reinterpret_cast<Words<4>*>(dot_row(2 * pair) + channel) = {
            {to_tf32(upper.x[0]), to_tf32(upper.x[1]), to_tf32(upper.x[2]), to_tf32(upper.x[3])}};
        *reinterpret_cast<Words<4>*>(dot_row(2 * pair + 1) + channel) = {
            {to_tf32(lower.x[0]), to_tf32(lower.x[1]), to_tf32(lower.x[2]), to_tf32(lower.x[3])}};
      } else {
        if constexpr (USE & DOTS) {
          *reinterpret_cast<Words<2>*>(dot_row(2 * pair) + channel / 2) = {
              {to_bf16_pair(upper.x[0], upper.x[1]), to_bf16_pair(upper.x[2], upper.x[3])}};
          *reinterpret_cast<Words<2>*>(dot_row(2 * pair + 1) + channel / 2) = {
              {to_bf16_pair(lower.x[0], lower.x[1]), to_bf16_pair(lower.x[2], lower.x[3])}};
        }
        if constexpr (USE & MIXTURES)
          *reinterpret_cast<Words<4>*>(mixture_row(pair) + channel) = {
              {to_bf16_pair(upper.x[0], lower.x[0]), to_bf16_pair(upper.x[1], lower.x[1]),
               to_bf16_pair(upper.x[2], lower.x[2]), to_bf16_pair(upper.x[3], lower.x[3])}};
      }
    }
  }
};

// 16 rows of the warp as left operand of dots. They are kept in registers if there are enough,
// otherwise read again for each use.
template <typename Factors, int HEAD, bool KEPT> struct OwnRows {
  static constexpr int WIDE = HEAD / Factors::PACK < 16 ? 2 : 4;
  static constexpr int SPAN = 4 * WIDE * Factors::PACK;  // channels of a group, for WIDE/2 mma
  static constexpr int GROUPS = HEAD / SPAN;
  struct Group {
    unsigned a[WIDE / 2][4];
  } groups[KEPT ? GROUPS : 1];
  const HeadRows* rows;
  int row;

  __device__ __forceinline__ void read(Group& group, int number) const {
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
      for (int i = 0; i < WIDE * Factors::PACK / 4; i++) {
        const int channel = number * SPAN + lane_within() * WIDE * Factors::PACK + 4 * i;
        const FourFloats four = rows->four(row + lane_group() + 8 * half, channel);
#pragma unroll
        for (int e = 0; e < 4; e += Factors::PACK) {
          const int word = (4 * i + e) / Factors::PACK;  // words 2·step and 2·step+1 are t and t+4
          group.a[word / 2][half + word % 2 * 2] = Factors::word(four.x + e);
        }
      }
  }
  __device__ __forceinline__ void begin(const HeadRows& of, int first) {
    rows = &of;
    row = first;
#pragma unroll
    for (int i = 0; KEPT && i < GROUPS; i++) read(groups[i], i);
  }
  __device__ __forceinline__ const Group& group(int number) {
    if (!KEPT) read(groups[0], number);
    return groups[KEPT ? number : 0];
  }
};

// s (16·M x 8·N) += own rows · rows of the tile
template <typename Factors, int M, int N, typename Own, typename Tile>
__device__ __forceinline__ void add_dots(float (&s)[M][N][4], Own (&own)[M], Tile& tile) {
  constexpr int WIDE = Tile::WIDE_DOTS;
#pragma unroll
  for (int number = 0; number < Own::GROUPS; number++) {
    typename Own::Group a[M];
#pragma unroll
    for (int m = 0; m < M; m++) a[m] = own[m].group(number);
#pragma unroll
    for (int n = 0; n < N; n++) {
      const unsigned* row = tile.dot_row(8 * n + Columns<Factors>::row_of(lane_group()));
      const auto words =
          *reinterpret_cast<const Words<WIDE>*>(row + (4 * number + lane_within()) * WIDE);
#pragma unroll
      for (int step = 0; step < WIDE / 2; step++) {
        const unsigned b[2] = {words.x[2 * step], words.x[2 * step + 1]};
#pragma unroll
        for (int m = 0; m < M; m++) Factors::mma(s[m][n], a[m].a[step], b);
      }
    }
  }
}

// total (16·M x HEAD) += s (16·M x 8·N) · rows of the tile
template <typename Factors, int HEAD, int M, int N, typename Tile>
__device__ __forceinline__ void add_mixtures(float (&total)[M][HEAD / 8][4],
                                             const float (&s)[M][N][4], Tile& tile) {
  constexpr int WIDE = Tile::WIDE_MIXTURES, PACK = Factors::PACK;
#pragma unroll
  for (int step = 0; step < N / PACK; step++) {
    unsigned a[M][4];
#pragma unroll
    for (int m = 0; m < M; m++) Columns<Factors>::operand(a[m], s[m] + step * PACK);
    const unsigned* upper = tile.mixture_row(8 * step + lane_within());
    const unsigned* lower =
        tile.mixture_row(8 * step + Columns<Factors>::second_row(lane_within()));
#pragma unroll
    for (int n = 0; n < HEAD / 8; n += WIDE) {
      const int channel = n * 8 + lane_group() * WIDE;
      const auto k = *reinterpret_cast<const Words<WIDE>*>(upper + channel);
      const auto k_plus_4 = *reinterpret_cast<const Words<WIDE>*>(lower + channel);
#pragma unroll
      for (int e = 0; e < WIDE; e++) {
        const unsigned b[2] = {k.x[e], k_plus_4.x[e]};
#pragma unroll
        for (int m = 0; m < M; m++) Factors::mma(total[m][n + e], a[m], b);
      }
    }
  }
}

// Writes factor·total, 16 rows from `row` on. `factors` has the factors of this lane's rows g and
// g+8.
template <int HEAD>
__device__ __forceinline__ void write_rows(float* __restrict__ to, size_t stride, int row, int time,
                                           int size, bool aligned,
                                           const float (&total)[HEAD / 8][4],
                                           const float (&factors)[2]) {
  constexpr int WIDE = HEAD < 32 ? 2 : 4;
#pragma unroll
  for (int half = 0; half < 2; half++)
#pragma unroll
    for (int i = 0; i < HEAD / 16; i++) {  // a lane's fours; 2·WIDE of its numbers are neighbours
      const int n = i / (WIDE / 2) * WIDE, part = i % (WIDE / 2) * 4;
      const int channel = n * 8 + lane_within() * 2 * WIDE + part;
      FourFloats four;
#pragma unroll
      for (int e = 0; e < 4; e++)
        four.x[e] = total[n + (part + e) % WIDE][2 * half + (part + e) / WIDE] * factors[half];
      const int at = row + lane_group() + 8 * half;
      float* place = to + at * stride + channel;
      if (at >= time) continue;
      if (aligned) {
        if (channel < size) *reinterpret_cast<FourFloats*>(place) = four;
      } else {
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (channel + e < size) place[e] = four.x[e];
      }
    }
}
