#include "prelude.cuh"
#include "tensor_cores.cuh"
#include "tiles.cuh"
#include "tensor_tiles.cuh"

// The backward pass of a linear layer in one launch:
//
//   dx = dy W,   dW = dyᵀ x,   db = Σ_rows dy       dy being 0 where y <= 0, if y is given
//
// with x (N, C_in), W (C_out, C_in) and dy, y (N, C_out). Some blocks compute tiles of dW, others
// tiles of dx, at the same time. dW has few tiles and a long K, the N rows: so each tile has several
// blocks, one for each part of the rows. The last one that is done with a tile adds up what all have
// left in `partial`, in the order of the parts; `counters` count them, and are 0 before and after.
// The blocks at the left edge of dW add up, for db, what they load of dy.
//
// `so_far`, if it is not null, is added to dx: the gradient that x has from elsewhere, for example
// past a residual connection. dx or dW (then db as well) may be null for what nobody wants, db alone
// likewise.

template <class Way, typename real = typename Way::real>
__device__ __forceinline__ void backward(const real* __restrict__ dy, const real* __restrict__ y,
                                         const real* __restrict__ x,
                                         const real* __restrict__ weight,
                                         const real* __restrict__ so_far, real* __restrict__ dx,
                                         real* dweight, real* dbias, real* partial,
                                         unsigned* counters, int rows, int c_in, int c_out,
                                         int parts, int rows_a_part) {
  const int across = (c_in + TILE - 1) / TILE;  // tiles beside each other, of dx and of dW
  const int weight_tiles = dweight ? (c_out + TILE - 1) / TILE * across : 0;
  const bool of_weight = blockIdx.x < unsigned(weight_tiles * parts);
  const int tile = of_weight ? blockIdx.x % weight_tiles : blockIdx.x - weight_tiles * parts;
  const int part = of_weight ? blockIdx.x / weight_tiles : 0;
  const int top = tile / across * TILE, side = tile % across * TILE;

  // What a part of dW and db is written to: C_out x C_in numbers, then C_out, then up to 3 that
  // nobody reads, so that all parts are aligned alike.
  const size_t weights = size_t(c_out) * c_in, length = (weights + c_out + 3) / 4 * 4;
  const bool whole = parts == 1;
  real* const mine = partial + length * part;
  real* const out = !of_weight ? dx : whole ? dweight : mine;
  const int height = of_weight ? c_out : rows;

  const Factor<real> left = {dy, y, of_weight ? c_out : rows, c_out, !of_weight, top};
  const Factor<real> right = {of_weight ? x : weight, nullptr, c_in, c_in, false, side};
  int depth = 0, last = c_out;
  if (of_weight) {
    depth = part * rows_a_part;
    last = rows - depth < rows_a_part ? rows : depth + rows_a_part;
  }
  typename Way::Loaded loaded;
  Way::run(left, right, depth, last, loaded, [&](int row, int column, real value) {
    row += top;
    column += side;
    if (row >= height || column >= c_in) return;
    const size_t place = size_t(row) * c_in + column;
    out[place] = so_far && !of_weight ? value + so_far[place] : value;
  });
  if (!of_weight) return;

  struct Shared {
    real loaded[Way::Loaded::SOURCES][TILE];
    bool last;
  };
  Shared& shared = block_shared<Shared>();
  const bool with_bias = dbias && side == 0;
  const int row = top + threadIdx.x;  // of the first TILE threads, for db
  if (with_bias) {
    loaded.put(shared.loaded);
    __syncthreads();
    if (threadIdx.x < TILE && row < c_out) {
      real sum = 0;
      for (int i = 0; i < Way::Loaded::SOURCES; i++) sum += shared.loaded[i][threadIdx.x];
      (whole ? dbias : mine + weights)[row] = sum;
    }
  }
  if (whole) return;

  __threadfence();  // the part is written before it counts
  __syncthreads();
  if (threadIdx.x == 0) shared.last = atomicAdd(counters + tile, 1u) == unsigned(parts - 1);
  __syncthreads();
  if (!shared.last) return;
  __threadfence();
  if (threadIdx.x == 0) counters[tile] = 0;
  // As many loads at a time as there are registers for, because each takes long. The sums are of
  // EACH elements a thread, THREADS apart in the tile.
  constexpr int EACH = TILE * TILE / Way::THREADS;
  real sums[EACH] = {};
#pragma unroll 2
  for (int p = 0; p < parts; p++)
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int i = threadIdx.x + e * Way::THREADS;
      const int r = top + i / TILE, c = side + i % TILE;
      if (r < c_out && c < c_in) sums[e] += __ldcg(partial + length * p + size_t(r) * c_in + c);
    }
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const int i = threadIdx.x + e * Way::THREADS;
    const int r = top + i / TILE, c = side + i % TILE;
    if (r < c_out && c < c_in) dweight[size_t(r) * c_in + c] = sums[e];
  }
  if (with_bias && threadIdx.x < TILE && row < c_out) {
    real sum = 0;
#pragma unroll 8
    for (int p = 0; p < parts; p++) sum += __ldcg(partial + length * p + weights + row);
    dbias[row] = sum;
  }
}

template <typename real>
__global__ void __launch_bounds__(Fma<real>::THREADS)
    linear_backward_fma(const real* __restrict__ dy, const real* __restrict__ y,
                        const real* __restrict__ x, const real* __restrict__ weight,
                        const real* __restrict__ so_far, real* __restrict__ dx, real* dweight,
                        real* dbias, real* partial, unsigned* counters, int rows, int c_in,
                        int c_out, int parts, int rows_a_part) {
  backward<Fma<real>>(dy, y, x, weight, so_far, dx, dweight, dbias, partial, counters, rows, c_in,
                      c_out, parts, rows_a_part);
}

__global__ void __launch_bounds__(Tensor<Tf32>::THREADS, 2)
    linear_backward_tf32(const float* __restrict__ dy, const float* __restrict__ y,
                         const float* __restrict__ x, const float* __restrict__ weight,
                         const float* __restrict__ so_far, float* __restrict__ dx, float* dweight,
                         float* dbias, float* partial, unsigned* counters, int rows, int c_in,
                         int c_out, int parts, int rows_a_part) {
  backward<Tensor<Tf32>>(dy, y, x, weight, so_far, dx, dweight, dbias, partial, counters, rows,
                         c_in, c_out, parts, rows_a_part);
}

__global__ void __launch_bounds__(Tensor<Bf16>::THREADS)
    linear_backward_bf16(const float* __restrict__ dy, const float* __restrict__ y,
                         const float* __restrict__ x, const float* __restrict__ weight,
                         const float* __restrict__ so_far, float* __restrict__ dx, float* dweight,
                         float* dbias, float* partial, unsigned* counters, int rows, int c_in,
                         int c_out, int parts, int rows_a_part) {
  backward<Tensor<Bf16>>(dy, y, x, weight, so_far, dx, dweight, dbias, partial, counters, rows,
                         c_in, c_out, parts, rows_a_part);
}
