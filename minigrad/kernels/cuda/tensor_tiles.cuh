#pragma once

// Tiles of matmuls on tensor cores (see tiles.cuh), ROWS x TILE. Each of eight warps computes
// ROWS/2 x 16 elements. Tiles with fewer rows give more blocks, which fill a GPU better when the
// matrices are small.
//
// A tile of an operand is stored in shared memory, rounded: each row has eight quads of words, and
// a word has PACK numbers of neighbouring depths. It is written a quad at a time if the operand is
// `along_depth`, otherwise one word of four rows. It is read as mma needs it: eight rows, one quad
// of each. Quad q of a row is stored at index q ^ turn(row), so that none of the three has a bank
// conflict. There are two such tiles of each operand. While one is used, the next is loaded to
// registers.

struct alignas(16) FourWords {
  unsigned x[4];
};

template <class Numbers, int HEIGHT> struct Tensor {
  using real = float;
  static constexpr int ROWS = HEIGHT, THREADS = 256;
  static constexpr int PACK = Numbers::PACK, WORDS = 32, DEPTH = WORDS * PACK;

  // Gives eight different numbers for rows 8k, ..., 8k+7, and for every fourth of 32 rows.
  static __device__ __forceinline__ int turn(int row) { return (row & 4) | ((row ^ row >> 3) & 3); }

  // What one thread loads of a tile of an operand: 4·PACK floats for each quad, four at a time. The
  // thread does not wait for these loads before `settle`.
  template <int HEIGHT_OF_FACTOR, bool MASKED> struct Share {
    static constexpr int QUADS = HEIGHT_OF_FACTOR * WORDS / 4 / THREADS;  // 32 rows apart
    const float *here, *mask;  // where the next tile begins; mask may be null
    int rows, row, depth;  // rows from the tile's first on; the thread's first row and depth
    int row_stride, depth_stride;
    bool along_depth, whole;  // whole: fours are aligned, and no row is beyond the operand's last
    float next[QUADS][4 * PACK], sign[MASKED ? QUADS : 1][4 * PACK];

    __device__ __forceinline__ Share(const Factor<float>& from, int first_depth) {
      along_depth = from.along_depth;
      const bool fours = in_fours(from.from, MASKED ? from.mask : nullptr, from.stride);
      row = along_depth ? threadIdx.x / 8 : threadIdx.x % 8 * 4;
      const int within = (along_depth ? threadIdx.x % 8 * 4 : threadIdx.x / 8) * PACK;
      depth = first_depth + within;
      rows = from.rows - from.first_row;
      whole = fours && row + 32 * (QUADS - 1) + (along_depth ? 0 : 3) < rows;
      const size_t place = from.place(from.first_row + row, depth);
      here = from.from + place;
      mask = MASKED && from.mask ? from.mask + place : nullptr;
      row_stride = along_depth ? from.stride : 1;
      depth_stride = along_depth ? 1 : from.stride;
    }
    // Loads the next tile; depths from `last` on are 0.
    __device__ __forceinline__ void load(int last) {
      const bool all = whole && depth + (along_depth ? 4 * PACK : PACK) <= last;
#pragma unroll
      for (int q = 0; q < QUADS; q++)
#pragma unroll
        for (int p = 0; p < PACK; p++) {
          const int r = row + 32 * q, d = depth + (along_depth ? 4 * p : p);
          const int inside = r >= rows || d >= last ? 0 : along_depth ? last - d : rows - r;
          const size_t place = size_t(32 * q) * row_stride + size_t(d - depth) * depth_stride;
          four(next[q] + 4 * p, here + place, all, inside);
          if (MASKED && mask) four(sign[q] + 4 * p, mask + place, all, inside);
        }
      depth += DEPTH;
      here += size_t(DEPTH) * depth_stride;
      if (MASKED && mask) mask += size_t(DEPTH) * depth_stride;
    }
    // Loads four neighbours in memory: by one instruction if `all`, otherwise the first `inside` of
    // them, and 0 for the rest.
    __device__ __forceinline__ void four(float* to, const float* from, bool all, int inside) const {
      FourFloats value = {};
      if (all) {
        value = *reinterpret_cast<const FourFloats*>(from);
      } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (i < inside) value.x[i] = from[i];
      }
#pragma unroll
      for (int i = 0; i < 4; i++) to[i] = value.x[i];
    }
    __device__ __forceinline__ void settle() {
      if (!MASKED || !mask) return;
#pragma unroll
      for (int q = 0; q < QUADS; q++)
#pragma unroll
        for (int i = 0; i < 4 * PACK; i++)
          if (sign[q][i] <= 0) next[q][i] = 0;
    }
    __device__ __forceinline__ void put(unsigned* tile) const {
#pragma unroll
      for (int q = 0; q < QUADS; q++) {
        if (along_depth) {
          const int r = row + 32 * q;
          FourWords quad;
#pragma unroll
          for (int i = 0; i < 4; i++) quad.x[i] = Numbers::word(next[q] + PACK * i);
          *reinterpret_cast<FourWords*>(tile + r * WORDS + 4 * (threadIdx.x % 8 ^ turn(r))) = quad;
        } else {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const int r = row + 32 * q + i, word = threadIdx.x / 8;
            float parts[PACK];
#pragma unroll
            for (int p = 0; p < PACK; p++) parts[p] = next[q][4 * p + i];
            tile[r * WORDS + (word ^ 4 * turn(r))] = Numbers::word(parts);
          }
        }
      }
    }
  };

  // Only valid if a is not `along_depth`: then a thread loads from four rows for each quad.
  struct Loaded {
    static constexpr int SOURCES = THREADS / 8, QUADS = Share<ROWS, true>::QUADS;
    float sums[QUADS][4] = {};

    __device__ __forceinline__ void add(const Share<ROWS, true>& share) {
#pragma unroll
      for (int q = 0; q < QUADS; q++)
#pragma unroll
        for (int i = 0; i < 4 * PACK; i++) sums[q][i % 4] += share.next[q][i];
    }
    __device__ __forceinline__ void put(float (*places)[ROWS]) const {
#pragma unroll
      for (int q = 0; q < QUADS; q++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          places[threadIdx.x / 8][threadIdx.x % 8 * 4 + 32 * q + i] = sums[q][i];
    }
  };

  template <class Store>
  static __device__ __forceinline__ void run(const Factor<float>& a, const Factor<float>& b,
                                             int depth, int last, Loaded& loaded, Store store) {
    struct Shared {
      alignas(16) unsigned a[2][ROWS * WORDS], b[2][TILE * WORDS];
    };
    Shared& shared = block_shared<Shared>();
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int group = lane / 4, within = lane % 4;  // where mma's results lie
    const int warp_row = warp % 2 * (ROWS / 2), warp_column = warp / 2 * 16;
    constexpr int M = ROWS / 32;  // a warp has M times the 16 rows of an mma
    // Where the row begins that this lane passes to load_matrices, for the first pair of quads. The
    // four matrices are, for a: rows r, then rows r + 8, of the first quad, then both of the second
    // quad; for b: columns c of the first quad, then of the second, then both for columns c + 8.
    int at_a[M], at_b;
#pragma unroll
    for (int i = 0; i < M; i++) {
      const int row = warp_row + 16 * i + lane % 16;
      at_a[i] = row * WORDS + 4 * (lane / 16 ^ turn(row));
    }
    const int column = warp_column + lane / 16 * 8 + lane % 8;
    at_b = column * WORDS + 4 * (lane / 8 % 2 ^ turn(column));
    float sums[M][2][4] = {};
    Share<ROWS, true> of_a(a, depth);
    Share<TILE, false> of_b(b, depth);  // b has no mask
    of_a.load(last);
    of_b.load(last);
    for (int stage = 0;; stage ^= 1) {
      of_a.settle();
      loaded.add(of_a);
      of_a.put(shared.a[stage]);
      of_b.put(shared.b[stage]);
      __syncthreads();  // the tiles are complete, and the previous ones have been used
      depth += DEPTH;
      if (depth < last) {
        of_a.load(last);
        of_b.load(last);
      }
      const unsigned *tile_a = shared.a[stage], *tile_b = shared.b[stage];
#pragma unroll
      for (int q = 0; q < 8; q += 2) {
        unsigned fragment_a[M][4], both_b[4];
#pragma unroll
        for (int i = 0; i < M; i++) load_matrices(fragment_a[i], tile_a + (at_a[i] ^ 4 * q));
        load_matrices(both_b, tile_b + (at_b ^ 4 * q));
        const unsigned fragment_b[2][2] = {{both_b[0], both_b[1]}, {both_b[2], both_b[3]}};
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
          for (int j = 0; j < 2; j++) Numbers::mma(sums[i][j], fragment_a[i], fragment_b[j]);
      }
      if (depth >= last) break;
    }
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
      for (int j = 0; j < 2; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          store(warp_row + 16 * i + group + e / 2 * 8, warp_column + 8 * j + 2 * within + e % 2,
                sums[i][j][e]);
  }
};
