#include "prelude.cuh"
#include "tensor_cores.cuh"
#include "tiles.cuh"
#include "tensor_tiles.cuh"

// The backward pass of a linear layer in one launch:
//
//   dx = dy W,   dW = dyᵀ x,   db = Σ_rows dy
//
// with x (N, C_in), W (C_out, C_in) and dy, y (N, C_out). If y is given, dy counts as 0 wherever
// y <= 0. The first blocks compute tiles of dW, the others tiles of dx. dW has few tiles, but each
// element is a long sum over the N rows. So the rows are split into parts, and each tile has one
// block per part, which writes its sum to `partial`. The last block to finish a tile adds up the
// parts, in order. `counters` count finished blocks and are 0 before and after. The blocks at the
// left edge of dW also sum the dy that they load, for db.
//
// `so_far`, if it is not null, is added to dx: it is the gradient of x from other ops, for example
// from a residual connection. `dx`, `dweight` and `dbias` are null if they are not needed; without
// `dweight` there is no `dbias`.

// Neighbouring elements of a row of dW, which a thread adds at a time: one, or four.
template <typename R> struct OneOf {
  using real = R;
  static constexpr int WIDTH = 1;
  real x[1];
  __device__ __forceinline__ void load(const real* from) { x[0] = __ldcg(from); }
};

template <typename R> struct FourOf {
  using real = R;
  static constexpr int WIDTH = 4;
  real x[4];
  __device__ __forceinline__ void load(const double* from) {
    for (int i = 0; i < 4; i++) x[i] = __ldcg(from + i);
  }
  __device__ __forceinline__ void load(const float* from) {
    const FourFloats four = four_from_l2(from);
    for (int i = 0; i < 4; i++) x[i] = four.x[i];
  }
};

// Adds up the parts of one tile of dW. Many loads at once take as long as one, so each thread loads
// AT_ONCE parts of two places at a time. To keep the loads free of branches, every load is valid:
// where a place lies outside of dW its first element is loaded, and beyond the last part the last.
template <class Way, class Several, typename real = typename Several::real>
__device__ __forceinline__ void add_parts(const real* partial, size_t length, int parts,
                                          real* dweight, int c_out, int c_in, int top, int side) {
  constexpr int WIDTH = Several::WIDTH, ACROSS = TILE / WIDTH, PLACES = Way::ROWS * ACROSS;
  constexpr int SIDE_BY_SIDE = 2, AT_ONCE = sizeof(real) == 4 ? 8 : 4;
#pragma unroll 1
  for (int begin = threadIdx.x; begin < PLACES; begin += SIDE_BY_SIDE * Way::THREADS) {
    size_t at[SIDE_BY_SIDE];
    bool inside[SIDE_BY_SIDE];
    real sums[SIDE_BY_SIDE][WIDTH] = {};
#pragma unroll
    for (int e = 0; e < SIDE_BY_SIDE; e++) {
      const int i = begin + e * Way::THREADS;
      const int r = top + i / ACROSS, c = side + i % ACROSS * WIDTH;
      inside[e] = i < PLACES && r < c_out && c < c_in;
      at[e] = inside[e] ? size_t(r) * c_in + c : 0;
    }
#pragma unroll 1
    for (int first = 0; first < parts; first += AT_ONCE) {
      Several loads[AT_ONCE][SIDE_BY_SIDE];
#pragma unroll
      for (int p = 0; p < AT_ONCE; p++)
#pragma unroll
        for (int e = 0; e < SIDE_BY_SIDE; e++)
          loads[p][e].load(partial + length * smaller(first + p, parts - 1) + at[e]);
#pragma unroll
      for (int p = 0; p < AT_ONCE; p++)
#pragma unroll
        for (int e = 0; e < SIDE_BY_SIDE; e++)
#pragma unroll
          for (int i = 0; i < WIDTH; i++)
            if (first + p < parts) sums[e][i] += loads[p][e].x[i];
    }
#pragma unroll
    for (int e = 0; e < SIDE_BY_SIDE; e++)
#pragma unroll
      for (int i = 0; i < WIDTH; i++)
        if (inside[e]) dweight[at[e] + i] = sums[e][i];
  }
}

template <class Way, typename real = typename Way::real>
__device__ __forceinline__ void backward(const real* __restrict__ dy, const real* __restrict__ y,
                                         const real* __restrict__ x,
                                         const real* __restrict__ weight,
                                         const real* __restrict__ so_far, real* __restrict__ dx,
                                         real* dweight, real* dbias, real* partial,
                                         unsigned* counters, int rows, int c_in, int c_out,
                                         int parts, int rows_a_part) {
  const int across = (c_in + TILE - 1) / TILE;  // tiles in a row of dx and of dW
  constexpr int ROWS = Way::ROWS;
  const int weight_tiles = dweight ? (c_out + ROWS - 1) / ROWS * across : 0;
  const bool of_weight = blockIdx.x < unsigned(weight_tiles * parts);
  const int tile = of_weight ? blockIdx.x % weight_tiles : blockIdx.x - weight_tiles * parts;
  const int part = of_weight ? blockIdx.x / weight_tiles : 0;
  const int top = tile / across * ROWS, side = tile % across * TILE;

  // A part of `partial` holds C_out x C_in numbers for dW, then C_out for db. Up to 3 unused
  // numbers follow, so that all parts have the same alignment.
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
    real loaded[Way::Loaded::SOURCES][ROWS];
    bool last;
  };
  Shared& shared = block_shared<Shared>();
  const bool with_bias = dbias && side == 0;
  const int row = top + threadIdx.x;  // row of db, for the first ROWS threads
  if (with_bias) {
    loaded.put(shared.loaded);
    __syncthreads();
    if (threadIdx.x < ROWS && row < c_out) {
      real sum = 0;
      for (int i = 0; i < Way::Loaded::SOURCES; i++) sum += shared.loaded[i][threadIdx.x];
      (whole ? dbias : mine + weights)[row] = sum;
    }
  }
  if (whole) return;

  if (!last_of_blocks(counters + tile, parts, shared.last)) return;
  if (c_in % 4 == 0)
    add_parts<Way, FourOf<real>>(partial, length, parts, dweight, c_out, c_in, top, side);
  else
    add_parts<Way, OneOf<real>>(partial, length, parts, dweight, c_out, c_in, top, side);
  if (with_bias && threadIdx.x < Way::ROWS && row < c_out) {
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

__global__ void __launch_bounds__(Tensor<Tf32, 32>::THREADS, 2)
    linear_backward_tf32(const float* __restrict__ dy, const float* __restrict__ y,
                         const float* __restrict__ x, const float* __restrict__ weight,
                         const float* __restrict__ so_far, float* __restrict__ dx, float* dweight,
                         float* dbias, float* partial, unsigned* counters, int rows, int c_in,
                         int c_out, int parts, int rows_a_part) {
  backward<Tensor<Tf32, 32>>(dy, y, x, weight, so_far, dx, dweight, dbias, partial, counters, rows,
                         c_in, c_out, parts, rows_a_part);
}

__global__ void __launch_bounds__(Tensor<Bf16, 32>::THREADS, 2)
    linear_backward_bf16(const float* __restrict__ dy, const float* __restrict__ y,
                         const float* __restrict__ x, const float* __restrict__ weight,
                         const float* __restrict__ so_far, float* __restrict__ dx, float* dweight,
                         float* dbias, float* partial, unsigned* counters, int rows, int c_in,
                         int c_out, int parts, int rows_a_part) {
  backward<Tensor<Bf16, 32>>(dy, y, x, weight, so_far, dx, dweight, dbias, partial, counters, rows,
                         c_in, c_out, parts, rows_a_part);
}
