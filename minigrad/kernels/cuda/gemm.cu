#include "prelude.cuh"

// Matrix products c = a·b + bias, optionally followed by max(·, 0): c (M, N) C-contiguous, a (M, K)
// and b (K, N) with any strides, so that transposed operands cost no copy.
//
// blockIdx is a tile of rows, a tile of columns and a part of K. With more than one part, block z
// writes its partial product to c[z] and a column sum adds these up (column_sums.cu), because a
// weight gradient has few elements and a very long K. `k_a_part` is a multiple of the tile's depth.

struct Operand {
  int rows, columns, row_stride, column_stride;
};

// A tile of rows first_row... and columns first_column... of an operand, ROWS x COLUMNS elements in
// registers, zeros outside. Neighbouring threads read neighbouring addresses in either order of
// memory; `row_of` and `column_of` say where element i of a thread belongs. PACK neighbours along a
// row go to one thread, as its elements i, i+1, ...
template <typename real, int ROWS, int COLUMNS, int THREADS, int PACK = 1> struct TileLoad {
  static constexpr int EACH = ROWS * COLUMNS / THREADS;
  real values[EACH];

  static __device__ __forceinline__ bool by_rows(const Operand& o) { return o.column_stride == 1; }
  static __device__ __forceinline__ int row_of(int i, const Operand& o) {
    const int n = i / PACK * THREADS + threadIdx.x;
    return by_rows(o) ? n / (COLUMNS / PACK) : n % ROWS;
  }
  static __device__ __forceinline__ int column_of(int i, const Operand& o) {
    const int n = i / PACK * THREADS + threadIdx.x;
    return (by_rows(o) ? n % (COLUMNS / PACK) : n / ROWS) * PACK + i % PACK;
  }

  __device__ __forceinline__ void load(const real* __restrict__ from, const Operand& o,
                                       int first_row, int first_column, int last_column) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int row = first_row + row_of(i, o), column = first_column + column_of(i, o);
      const bool inside = row < o.rows && column < last_column;
      values[i] = inside ? from[size_t(row) * o.row_stride + size_t(column) * o.column_stride] : 0;
    }
  }
};

// Where the part of K ends that this block adds up.
__device__ __forceinline__ int end_of_part(int k, int k_a_part) {
  return k - int(blockIdx.z) * k_a_part < k_a_part ? k : int(blockIdx.z + 1) * k_a_part;
}

template <typename real>
__device__ __forceinline__ void finish(real* __restrict__ c, const real* __restrict__ bias, int row,
                                       int column, int m, int n, int relu, real value) {
  if (row >= m || column >= n) return;
  if (bias) value += bias[column];
  c[(size_t(blockIdx.z) * m + row) * n + column] = relu && value < 0 ? 0 : value;
}

// Fused multiply-adds in the precision of `real`: 256 threads, a tile of 64 x 64, 4 x 4 a thread.
template <typename real>
__global__ void __launch_bounds__(256)
    gemm_fma(const real* __restrict__ a, const real* __restrict__ b, const real* __restrict__ bias,
             real* __restrict__ c, int m, int n, int k, int a_row, int a_column, int b_row,
             int b_column, int k_a_part, int relu) {
  constexpr int TILE = 64, DEPTH = 16;
  struct Shared {
    real a[DEPTH][TILE + 1], b[DEPTH][TILE + 1];
  };
  Shared& shared = block_shared<Shared>();
  const Operand left = {m, k, a_row, a_column};
  const Operand right = {n, k, b_column, b_row};  // b transposed: both tiles are rows x depth
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  const int top = blockIdx.x * TILE, side = blockIdx.y * TILE;
  const int k_end = end_of_part(k, k_a_part);

  real sums[4][4] = {};
  TileLoad<real, TILE, DEPTH, 256> next_a, next_b;
  for (int depth = blockIdx.z * k_a_part; depth < k_end; depth += DEPTH) {
    next_a.load(a, left, top, depth, k_end);
    next_b.load(b, right, side, depth, k_end);
    __syncthreads();  // the tile before has been used
#pragma unroll
    for (int i = 0; i < next_a.EACH; i++) {
      shared.a[next_a.column_of(i, left)][next_a.row_of(i, left)] = next_a.values[i];
      shared.b[next_b.column_of(i, right)][next_b.row_of(i, right)] = next_b.values[i];
    }
    __syncthreads();
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
      real left_part[4], right_part[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        left_part[i] = shared.a[d][y + 16 * i];
        right_part[i] = shared.b[d][x + 16 * i];
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] += left_part[i] * right_part[j];
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
      finish(c, bias, top + y + 16 * i, side + x + 16 * j, m, n, relu, sums[i][j]);
}

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

// 128 threads, a tile of 64 x 64, each warp a quarter of it (32 x 32).
template <typename Factors>
__device__ __forceinline__ void tensor_product(const float* __restrict__ a,
                                               const float* __restrict__ b,
                                               const float* __restrict__ bias,
                                               float* __restrict__ c, const Operand& left,
                                               const Operand& right, int k_a_part, int relu) {
  constexpr int TILE = 64, DEPTH = 32, WORDS = DEPTH / Factors::PACK;
  // Four words more than a row needs: the eight rows and four columns that a fragment reads then
  // lie in 32 banks.
  struct Shared {
    unsigned a[TILE][WORDS + 4], b[TILE][WORDS + 4];
  };
  Shared& shared = block_shared<Shared>();
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int group = lane / 4, within = lane % 4;
  const int warp_row = warp % 2 * 32, warp_column = warp / 2 * 32;
  const int top = blockIdx.x * TILE, side = blockIdx.y * TILE;
  const int k_end = end_of_part(left.columns, k_a_part);

  float sums[2][4][4] = {};
  TileLoad<float, TILE, DEPTH, 128, Factors::PACK> next_a, next_b;
  for (int depth = blockIdx.z * k_a_part; depth < k_end; depth += DEPTH) {
    next_a.load(a, left, top, depth, k_end);
    next_b.load(b, right, side, depth, k_end);
    __syncthreads();  // the words before have been used
#pragma unroll
    for (int i = 0; i < next_a.EACH; i += Factors::PACK) {
      const int word_a = next_a.column_of(i, left) / Factors::PACK;
      const int word_b = next_b.column_of(i, right) / Factors::PACK;
      shared.a[next_a.row_of(i, left)][word_a] = Factors::word(next_a.values + i);
      shared.b[next_b.row_of(i, right)][word_b] = Factors::word(next_b.values + i);
    }
    __syncthreads();
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
        for (int j = 0; j < 4; j++) Factors::mma(sums[i][j], fragment_a[i], fragment_b[j]);
    }
  }
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int row = top + warp_row + 16 * i + group + e / 2 * 8;
        const int column = side + warp_column + 8 * j + 2 * within + e % 2;
        finish(c, bias, row, column, left.rows, right.rows, relu, sums[i][j][e]);
      }
}

__global__ void __launch_bounds__(128)
    gemm_tf32(const float* __restrict__ a, const float* __restrict__ b,
              const float* __restrict__ bias, float* __restrict__ c, int m, int n, int k, int a_row,
              int a_column, int b_row, int b_column, int k_a_part, int relu) {
  tensor_product<Tf32>(a, b, bias, c, {m, k, a_row, a_column}, {n, k, b_column, b_row}, k_a_part,
                       relu);
}

__global__ void __launch_bounds__(128)
    gemm_bf16(const float* __restrict__ a, const float* __restrict__ b,
              const float* __restrict__ bias, float* __restrict__ c, int m, int n, int k, int a_row,
              int a_column, int b_row, int b_column, int k_a_part, int relu) {
  tensor_product<Bf16>(a, b, bias, c, {m, k, a_row, a_column}, {n, k, b_column, b_row}, k_a_part,
                       relu);
}
