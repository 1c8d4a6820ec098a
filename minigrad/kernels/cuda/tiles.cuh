#pragma once

// One block computes one tile of a matmul a·b: here by fused multiply-adds, in tensor_tiles.cuh on
// tensor cores. "Depth" is the index that is summed over. Each of the two classes has
//
//   ROWS        the rows of a tile, which has TILE columns
//   THREADS     the threads of a block
//   run(a, b, depth, last, loaded, store)
//               sums over [depth, last) and calls store(row, column, value) for each element of the
//               tile; `loaded` sums the elements of a that this thread loads
//   Loaded      those sums, one for each row that the thread loads from. put(places) writes them to
//               places[SOURCES][ROWS]; the sum of one column of `places` is the sum of a row of a

[[maybe_unused]] constexpr int TILE = 64;

// An operand of a matmul as rows x depth: a itself, or b transposed. If `along_depth`, neighbours
// in memory are of one row, otherwise of one depth. So a transposed operand needs no copy.
template <typename real> struct Factor {
  const real* __restrict__ from;
  // Null, or an array of the same layout: where it is <= 0, the operand counts as 0. Only for a.
  const real* __restrict__ mask;
  int rows, stride;               // from one row to the next, or from one depth to the next
  bool along_depth;
  int first_row;  // the tile's first row

  __device__ __forceinline__ size_t place(int row, int depth) const {
    return along_depth ? size_t(row) * stride + depth : size_t(depth) * stride + row;
  }
  __device__ __forceinline__ real at(int row, int depth, int last) const {
    if (row >= rows || depth >= last) return 0;
    const size_t here = place(row, depth);
    return mask && mask[here] <= 0 ? 0 : from[here];
  }
};

// Fused multiply-adds in the precision of `real`; each thread computes 4 x 4 elements.
template <typename R> struct Fma {
  using real = R;
  static constexpr int ROWS = TILE, THREADS = 256, DEPTH = 16, EACH = TILE * DEPTH / THREADS;

  // The EACH elements of a tile that one thread loads. Neighbouring threads read neighbouring
  // addresses.
  struct Share {
    int row, depth, row_step, depth_step;
    real next[EACH];

    __device__ __forceinline__ explicit Share(bool along_depth) {
      row = along_depth ? threadIdx.x / DEPTH : threadIdx.x % TILE;
      depth = along_depth ? threadIdx.x % DEPTH : threadIdx.x / TILE;
      row_step = along_depth ? THREADS / DEPTH : 0;
      depth_step = along_depth ? 0 : THREADS / TILE;
    }
    __device__ __forceinline__ void load(const Factor<real>& from, int first, int last) {
#pragma unroll
      for (int i = 0; i < EACH; i++)
        next[i] = from.at(from.first_row + row + i * row_step, first + depth + i * depth_step, last);
    }
    __device__ __forceinline__ void put(real (&tile)[DEPTH][TILE + 1]) const {
#pragma unroll
      for (int i = 0; i < EACH; i++) tile[depth + i * depth_step][row + i * row_step] = next[i];
    }
  };

  // Only valid if a is not `along_depth`: then all elements that a thread loads are of one row.
  struct Loaded {
    static constexpr int SOURCES = THREADS / TILE;
    real sum = 0;
    __device__ __forceinline__ void put(real (*places)[TILE]) const {
      places[threadIdx.x / TILE][threadIdx.x % TILE] = sum;
    }
  };

  template <class Store>
  static __device__ __forceinline__ void run(const Factor<real>& a, const Factor<real>& b,
                                             int depth, int last, Loaded& loaded, Store store) {
    struct Shared {
      real a[DEPTH][TILE + 1], b[DEPTH][TILE + 1];
    };
    Shared& shared = block_shared<Shared>();
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    real sums[4][4] = {};
    Share of_a(a.along_depth), of_b(b.along_depth);
    of_a.load(a, depth, last);
    of_b.load(b, depth, last);
    for (; depth < last; depth += DEPTH) {
      __syncthreads();  // all threads have used the previous tile
#pragma unroll
      for (int i = 0; i < EACH; i++) loaded.sum += of_a.next[i];
      of_a.put(shared.a);
      of_b.put(shared.b);
      __syncthreads();
      if (depth + DEPTH < last) {  // the next tile, loaded while this one is used
        of_a.load(a, depth + DEPTH, last);
        of_b.load(b, depth + DEPTH, last);
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
  }
};
