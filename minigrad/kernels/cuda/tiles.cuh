#pragma once

// A tile of a matrix product a·b, TILE x TILE, by one block: on tensor cores or by fused
// multiply-adds. Operands may have any strides, so that transposed ones cost no copy.

[[maybe_unused]] constexpr int TILE = 64;

// Rows x depth: a as it is, b transposed. `along_rows` is the order in which threads load it, so
// that neighbours read neighbouring addresses: true if neighbours in memory are of one row.
struct Operand {
  int rows, columns, row_stride, column_stride;
  bool along_rows;
};

// The part of a tile of TILE x COLUMNS elements that one thread loads: EACH of them, in groups of
// PACK neighbours along a row. Group g begins at (row + g·row_step, column + g·column_step).
template <int COLUMNS, int THREADS, int PACK = 1> struct Share {
  static constexpr int EACH = TILE * COLUMNS / THREADS, GROUPS = EACH / PACK;
  int row, column, row_step, column_step;

  __device__ __forceinline__ explicit Share(bool along_rows) {
    constexpr int ACROSS = COLUMNS / PACK;  // groups in a row of the tile
    row = along_rows ? threadIdx.x / ACROSS : threadIdx.x % TILE;
    column = (along_rows ? threadIdx.x % ACROSS : threadIdx.x / TILE) * PACK;
    row_step = along_rows ? THREADS / ACROSS : 0;
    column_step = along_rows ? 0 : THREADS / TILE * PACK;
  }

  // Into registers: the tile at (first_row, first_column) of an operand; zeros outside of its rows
  // and from `last` on. Where `mask`, which lies as the operand does, is not positive nor NaN: 0.
  template <typename real>
  __device__ __forceinline__ void load(real (&values)[EACH], const real* __restrict__ from,
                                       const real* __restrict__ mask, const Operand& o,
                                       int first_row, int first_column, int last) const {
    const int first = first_row + row, begin = first_column + column;
    const size_t start = size_t(first) * o.row_stride + size_t(begin) * o.column_stride;
    const size_t step = size_t(row_step) * o.row_stride + size_t(column_step) * o.column_stride;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int group = i / PACK, part = i % PACK;
      const bool inside = first + group * row_step < o.rows &&
                          begin + group * column_step + part < last;
      const size_t place = start + group * step + size_t(part) * o.column_stride;
      values[i] = inside ? from[place] : 0;
      if (mask && inside && mask[place] <= 0) values[i] = 0;
    }
  }
};

// A factor of a product: where it lies, its mask or null, and which rows the tile has.
template <typename real> struct Factor {
  const real* __restrict__ from;
  const real* __restrict__ mask;
  Operand shape;
  int first_row;
};

// Ways to compute a tile. `run` calls store(row, column, value) for each element of it, within it,
// and returns the sum of the elements of a that this thread has loaded.

// Fused multiply-adds in the precision of `real`: 4 x 4 elements a thread.
template <typename R> struct Fma {
  using real = R;
  static constexpr int THREADS = 256;

  template <class Store>
  static __device__ __forceinline__ real run(const Factor<real>& a, const Factor<real>& b,
                                             int depth, int last, Store store) {
    constexpr int DEPTH = 16;
    struct Shared {
      real a[DEPTH][TILE + 1], b[DEPTH][TILE + 1];
    };
    Shared& shared = block_shared<Shared>();
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    real sums[4][4] = {}, loaded = 0;
    using Part = Share<DEPTH, THREADS>;
    const Part part_a(a.shape.along_rows), part_b(b.shape.along_rows);
    real next_a[Part::EACH], next_b[Part::EACH];
    part_a.load(next_a, a.from, a.mask, a.shape, a.first_row, depth, last);
    part_b.load(next_b, b.from, b.mask, b.shape, b.first_row, depth, last);
    for (; depth < last; depth += DEPTH) {
      __syncthreads();  // the tile before has been used
#pragma unroll
      for (int i = 0; i < Part::EACH; i++) {
        loaded += next_a[i];
        shared.a[part_a.column + i * part_a.column_step][part_a.row + i * part_a.row_step] =
            next_a[i];
        shared.b[part_b.column + i * part_b.column_step][part_b.row + i * part_b.row_step] =
            next_b[i];
      }
      __syncthreads();
      if (depth + DEPTH < last) {  // on their way while this tile is used
        part_a.load(next_a, a.from, a.mask, a.shape, a.first_row, depth + DEPTH, last);
        part_b.load(next_b, b.from, b.mask, b.shape, b.first_row, depth + DEPTH, last);
      }
#pragma unroll
      for (int d = 0; d < DEPTH; d++) {
        real left[4], right[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          left[i] = shared.a[d][y + 16 * i];
          right[i] = shared.b[d][x + 16 * i];
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
          for (int j = 0; j < 4; j++) sums[i][j] += left[i] * right[j];
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) store(y + 16 * i, x + 16 * j, sums[i][j]);
    return loaded;
  }
};

// Tensor cores: each of four warps computes a quarter of the tile (32 x 32).
template <class Numbers> struct Tensor {
  using real = float;
  static constexpr int THREADS = 128;

  template <class Store>
  static __device__ __forceinline__ float run(const Factor<float>& a, const Factor<float>& b,
                                              int depth, int last, Store store) {
    constexpr int DEPTH = 32, PACK = Numbers::PACK, WORDS = DEPTH / PACK;
    // Four words more than a row needs: the eight rows and four columns that a fragment reads then
    // lie in 32 banks.
    struct Shared {
      unsigned a[TILE][WORDS + 4], b[TILE][WORDS + 4];
    };
    Shared& shared = block_shared<Shared>();
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int group = lane / 4, within = lane % 4;
    const int warp_row = warp % 2 * 32, warp_column = warp / 2 * 32;
    float sums[2][4][4] = {}, loaded = 0;
    using Part = Share<DEPTH, THREADS, PACK>;
    const Part part_a(a.shape.along_rows), part_b(b.shape.along_rows);
    float next_a[Part::EACH], next_b[Part::EACH];
    part_a.load(next_a, a.from, a.mask, a.shape, a.first_row, depth, last);
    part_b.load(next_b, b.from, b.mask, b.shape, b.first_row, depth, last);
    for (; depth < last; depth += DEPTH) {
      __syncthreads();  // the words before have been used
#pragma unroll
      for (int g = 0; g < Part::GROUPS; g++) {
#pragma unroll
        for (int part = 0; part < PACK; part++) loaded += next_a[g * PACK + part];
        shared.a[part_a.row + g * part_a.row_step][(part_a.column + g * part_a.column_step) / PACK] =
            Numbers::word(next_a + g * PACK);
        shared.b[part_b.row + g * part_b.row_step][(part_b.column + g * part_b.column_step) / PACK] =
            Numbers::word(next_b + g * PACK);
      }
      __syncthreads();
      if (depth + DEPTH < last) {
        part_a.load(next_a, a.from, a.mask, a.shape, a.first_row, depth + DEPTH, last);
        part_b.load(next_b, b.from, b.mask, b.shape, b.first_row, depth + DEPTH, last);
      }
#pragma unroll
      for (int w = 0; w < WORDS; w += 8) {
        unsigned fragment_a[2][4], fragment_b[4][2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int row = warp_row + 16 * i + group;
          fragment_a[i][0] = shared.a[row][w + within];
          fragment_a[i][1] = shared.a[row + 8][w + within];
          fragment_a[i][2] = shared.a[row][w + within + 4];
          fragment_a[i][3] = shared.a[row + 8][w + within + 4];
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int column = warp_column + 8 * j + group;
          fragment_b[j][0] = shared.b[column][w + within];
          fragment_b[j][1] = shared.b[column][w + within + 4];
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
          for (int j = 0; j < 4; j++) Numbers::mma(sums[i][j], fragment_a[i], fragment_b[j]);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          store(warp_row + 16 * i + group + e / 2 * 8, warp_column + 8 * j + 2 * within + e % 2,
                sums[i][j][e]);
    return loaded;
  }
};
