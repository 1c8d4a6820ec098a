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
  // and from `last` on. Where `mask`, which lies as the operand does, is not positive: 0.
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
      if (mask && inside) values[i] *= real(mask[place] > 0);
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

// Tensor cores: factors of TF32 (floats whose last 13 bits are rounded away) or bfloat16 (the upper
// half of a float, rounded; two in a word), sums in float32. The PTX of compute capability 8.0 and
// above; the test shim has its own functions of these names.
#ifndef CUDA_ON_CPU
__device__ __forceinline__ unsigned to_tf32(float x) {
  unsigned result = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(x));
#endif
  return result;
}

__device__ __forceinline__ unsigned to_bf16_pair(float low, float high) {
  unsigned result = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
#endif
  return result;
}

// d (16 x 8) += a (16 x 8 words)·b (8 words x 8), spread over a warp as the PTX manual has it: with
// g = lane/4 and t = lane%4, a holds the words (g, t), (g+8, t), (g, t+4), (g+8, t+4); b holds
// (t, g), (t+4, g); d holds (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1).
#define MMA(shape, numbers)                                                                      \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." numbers "." numbers ".f32 "             \
               "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                           \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                  \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  MMA("m16n8k8", "tf32");
#endif
}

__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  MMA("m16n8k16", "bf16");
#endif
}
#endif

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

// How factors lie in the 32-bit words of shared memory and of fragments, PACK in each.
struct Tf32 {
  static constexpr int PACK = 1;
  static __device__ __forceinline__ unsigned word(const float* x) { return to_tf32(x[0]); }
  static __device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2]) {
    mma_tf32(d, a, b);
  }
};

struct Bf16 {
  static constexpr int PACK = 2;
  static __device__ __forceinline__ unsigned word(const float* x) {
    return to_bf16_pair(x[0], x[1]);
  }
  static __device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2]) {
    mma_bf16(d, a, b);
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
