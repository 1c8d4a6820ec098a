#pragma once

// Tiles of products on tensor cores (see tiles.cuh): each of eight warps computes 32 x 16 elements.
//
// A tile of a factor lies in shared memory as TILE rows of eight quads of words, rounded; a word has
// PACK factors of neighbouring depths. It is written a quad at a time if neighbours in memory are of
// one row, four rows at a time if they are of one depth, and read as mma wants it: eight rows, one
// quad of each. So that none of the three meets a bank of shared memory twice, quad q of a row lies
// at place q ^ turn(row). There are two such tiles of each factor: while one is used the next is on
// its way, in registers.

struct alignas(16) FourWords {
  unsigned x[4];
};

template <class Numbers> struct Tensor {
  using real = float;
  static constexpr int PACK = Numbers::PACK, THREADS = 256, WORDS = 32, DEPTH = WORDS * PACK;
  static constexpr int QUADS = TILE * WORDS / 4 / THREADS;  // that a thread loads, 32 rows apart

  // Different for eight rows from a multiple of 8 on, and for every fourth of 32. For row + 8·n it is
  // turn(row) ^ n where that carries nothing: n < 4 and bits 3 and 4 of the row that n has are 0.
  static __device__ __forceinline__ int turn(int row) { return (row & 4) | ((row ^ row >> 3) & 3); }

  // What one thread loads of a tile of a factor: of each quad 4·PACK floats, four at a time.
  struct Share {
    const Factor<float>& from;
    bool fours;
    int row, depth;  // of the first float; the next four lie `PACK` further along or one depth on
    float next[QUADS][4 * PACK];

    __device__ __forceinline__ explicit Share(const Factor<float>& factor) : from(factor) {
      fours = in_fours(factor.from, factor.mask, factor.stride);
      row = factor.along_depth ? threadIdx.x / 8 : threadIdx.x % 8 * 4;
      depth = (factor.along_depth ? threadIdx.x % 8 * 4 : threadIdx.x / 8) * PACK;
    }
    __device__ __forceinline__ void load(int first, int last) {
#pragma unroll
      for (int q = 0; q < QUADS; q++)
#pragma unroll
        for (int p = 0; p < PACK; p++) {
          const int r = from.first_row + row + 32 * q;
          const int d = first + depth + (from.along_depth ? 4 * p : p);
          const int inside = r >= from.rows || d >= last ? 0 : from.along_depth ? last - d
                                                                                 : from.rows - r;
          four(next[q] + 4 * p, from.place(r, d), inside);
        }
    }
    // Four neighbours in memory, 0 from number `inside` on.
    __device__ __forceinline__ void four(float* to, size_t here, int inside) const {
      FourFloats value = {}, mask = {};
      if (fours && inside >= 4) {
        value = *reinterpret_cast<const FourFloats*>(from.from + here);
        if (from.mask) mask = *reinterpret_cast<const FourFloats*>(from.mask + here);
      } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          if (i < inside) value.x[i] = from.from[here + i];
          if (i < inside && from.mask) mask.x[i] = from.mask[here + i];
        }
      }
#pragma unroll
      for (int i = 0; i < 4; i++) to[i] = from.mask && mask.x[i] <= 0 ? 0 : value.x[i];
    }
    __device__ __forceinline__ void put(unsigned* tile) const {
#pragma unroll
      for (int q = 0; q < QUADS; q++) {
        if (from.along_depth) {
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

  // Of a that does not lie along its depth: then a thread has four rows of each quad.
  struct Loaded {
    static constexpr int SOURCES = THREADS / 8;
    float sums[QUADS][4] = {};

    __device__ __forceinline__ void add(const Share& share) {
#pragma unroll
      for (int q = 0; q < QUADS; q++)
#pragma unroll
        for (int i = 0; i < 4 * PACK; i++) sums[q][i % 4] += share.next[q][i];
    }
    __device__ __forceinline__ void put(float (*places)[TILE]) const {
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
      alignas(16) unsigned a[2][TILE * WORDS], b[2][TILE * WORDS];
    };
    Shared& shared = block_shared<Shared>();
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int group = lane / 4, within = lane % 4;
    const int warp_row = warp % 2 * 32, warp_column = warp / 2 * 16;
    int at_a[8], at_b[8];  // where this lane's word of each quad lies, in its first row
#pragma unroll
    for (int q = 0; q < 8; q++) {
      const int row = warp_row + group, column = warp_column + group;
      at_a[q] = row * WORDS + 4 * (q ^ turn(row)) + within;
      at_b[q] = column * WORDS + 4 * (q ^ turn(column)) + within;
    }
    float sums[2][2][4] = {};
    Share of_a(a), of_b(b);
    of_a.load(depth, last);
    of_b.load(depth, last);
    for (int stage = 0;; stage ^= 1) {
      loaded.add(of_a);
      of_a.put(shared.a[stage]);
      of_b.put(shared.b[stage]);
      __syncthreads();  // the tiles are whole, and those before have been used
      depth += DEPTH;
      if (depth < last) {
        of_a.load(depth, last);
        of_b.load(depth, last);
      }
      const unsigned *tile_a = shared.a[stage], *tile_b = shared.b[stage];
#pragma unroll
      for (int q = 0; q < 8; q += 2) {
        unsigned fragment_a[2][4], fragment_b[2][2];
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
          for (int part = 0; part < 4; part++) {  // rows r and r + 8, then the second quad of both
            const int n = 2 * i + part % 2;
            fragment_a[i][part] = tile_a[at_a[(q + part / 2) ^ n] + 8 * n * WORDS];
          }
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
          for (int part = 0; part < 2; part++)
            fragment_b[j][part] = tile_b[at_b[(q + part) ^ j] + 8 * j * WORDS];
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
          for (int j = 0; j < 2; j++) Numbers::mma(sums[i][j], fragment_a[i], fragment_b[j]);
      }
      if (depth >= last) break;
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < 2; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          store(warp_row + 16 * i + group + e / 2 * 8, warp_column + 8 * j + 2 * within + e % 2,
                sums[i][j][e]);
  }
};
