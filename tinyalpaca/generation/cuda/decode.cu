#include "prelude.cuh"
#include "decode.cuh"

// Computes one position of each row (a sequence that is being continued, or a position of a
// prompt), with cached keys and values of earlier positions; the maths is in decode.py. A row at a
// negative place is unused: its result is 0, and the cache is not changed.

// x[row] = tokens[id] + positions[place]; each thread computes one element. `positions` may be
// null. An id outside of the table gives NaN; nothing outside of the table is read. Grid: rows,
// blocks of channels.
template <typename real>
__global__ void __launch_bounds__(256)
    decode_embed(const real* __restrict__ tokens, const real* __restrict__ positions,
                 const int* __restrict__ ids, const int* __restrict__ places, real* __restrict__ x,
                 int channels, int vocabulary) {
  const int row = blockIdx.x, c = blockIdx.y * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  const int id = ids[row], place = places[row];
  real value = 0;
  if (place >= 0) {
    const bool inside = id >= 0 && id < vocabulary;
    value = inside ? tokens[size_t(id) * channels + c] : real(0) / real(0);
    if (positions) value += positions[size_t(place) * channels + c];
  }
  x[size_t(row) * channels + c] = value;
}

// y = activation(W [x̂ | more] + bias) + residual. One warp computes one output of ROWS rows. x̂ is
// x or x/√(mean(x²) + ε). The norm is one factor per row, so it is applied to the sum, not to x.
// `x` is null if `width` is 0, `more` if `more_width` is 0; `residual` may be null. Grid: blocks of
// outputs, blocks of rows.
template <typename real, int ROWS>
__global__ void __launch_bounds__(256)
    decode_linear(const real* __restrict__ x, const real* __restrict__ more,
                  const real* __restrict__ weight, const real* __restrict__ bias,
                  const real* __restrict__ residual, real* __restrict__ y, int rows, int width,
                  int more_width, int outputs, int normalised, int activation, real eps) {
  const int output = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP, first = blockIdx.y * ROWS;
  if (output >= outputs) return;  // the whole warp
  const real* factors = weight + size_t(output) * (width + more_width);

  real total = 0;
  if (width) {
    real sums[ROWS] = {}, squares[ROWS] = {};
    for (int k = lane; k < width; k += WARP) {
      const real factor = factors[k];
#pragma unroll
      for (int r = 0; r < ROWS; r++) {  // beyond the end it reads the last row again
        const real value = x[size_t(smaller(first + r, rows - 1)) * width + k];
        sums[r] += factor * value;
        squares[r] += value * value;
      }
    }
    total = decode_warp_sums(sums);
    if (normalised) total /= sqrt(decode_warp_sums(squares) / width + eps);
  }
  if (more_width) {
    real sums[ROWS] = {};
    for (int k = lane; k < more_width; k += WARP) {
      const real factor = factors[width + k];
#pragma unroll
      for (int r = 0; r < ROWS; r++)
        sums[r] += factor * more[size_t(smaller(first + r, rows - 1)) * more_width + k];
    }
    total += decode_warp_sums(sums);
  }
  const int row = first + lane / (WARP / ROWS);
  if (lane % (WARP / ROWS) || row >= rows) return;  // another lane has the same result
  const size_t place = size_t(row) * outputs + output;
  const real value = decode_activated(total + bias[output], activation);
  y[place] = residual ? value + residual[place] : value;
}

// Caches keys and values of many positions of a sequence, before attention reads any of them. With
// rotary positions the queries in `qkv` are rotated in place. Grid: rows, heads.
template <typename real>
__global__ void __launch_bounds__(256)
    decode_append(real* qkv, const real* __restrict__ rotation, real* keys, real* values,
                  const int* __restrict__ slots, const int* __restrict__ places, int room,
                  int size) {
  const DecodeHead<real> h = decode_head(qkv, keys, values, slots, places, room, size,
                                         blockIdx.x, blockIdx.y, gridDim.y);
  if (h.place >= 0) decode_keep(h, rotation, threadIdx.x, blockDim.x);
}

// out = softmax(q·keys) values, over the positions up to the row's own. With `append` it first
// caches the row's own key and value. One block computes one row and head. `scores` (rows, H, S) is
// a workspace; queries are already scaled. Pointers that are both read and written here are not
// `__restrict__`. Grid: rows, heads.
template <typename real>
__global__ void __launch_bounds__(256)
    decode_attend(real* qkv, const real* __restrict__ rotation, real* keys, real* values,
                  const int* __restrict__ slots, const int* __restrict__ places, real* scores,
                  real* __restrict__ out, int room, int size, int append) {
  struct Shared {
    real scratch[8], partial[256];
  };
  Shared& shared = block_shared<Shared>();
  const DecodeHead<real> h = decode_head(qkv, keys, values, slots, places, room, size,
                                         blockIdx.x, blockIdx.y, gridDim.y);
  const size_t pair = size_t(blockIdx.x) * gridDim.y + blockIdx.y;
  real* mixed = out + pair * size;
  if (h.place < 0) {  // for the whole block
    for (int d = threadIdx.x; d < size; d += blockDim.x) mixed[d] = 0;
    return;
  }
  if (append) {
    decode_keep(h, rotation, threadIdx.x, blockDim.x);
    __syncthreads();  // what one thread kept is read by others
  }

  // Each thread computes single positions. Until the sum is known it reads only its own scores.
  real* weights = scores + pair * room;
  real top = lowest<real>();
  for (int t = threadIdx.x; t <= h.place; t += blockDim.x) {
    real score = 0;
    for (int d = 0; d < size; d++) score += h.q[d] * h.keys[size_t(d) * room + t];
    weights[t] = score;
    top = larger(top, score);
  }
  top = block_max(top, shared.scratch);
  real sum = 0;
  for (int t = threadIdx.x; t <= h.place; t += blockDim.x) {
    const real weight = exp(weights[t] - top);
    weights[t] = weight;
    sum += weight;
  }
  sum = block_sum(sum, shared.scratch);  // has a barrier: all weights are written

  // `across` neighbouring threads read the values of one position; the block reads several
  // positions at once.
  int across = 1;
  while (across < size && across < blockDim.x) across *= 2;
  const int groups = blockDim.x / across, group = threadIdx.x / across;
  for (int first = 0; first < size; first += across) {
    const int d = first + threadIdx.x % across;
    real part = 0;
    if (d < size)
      for (int t = group; t <= h.place; t += groups)
        part += weights[t] * h.values[size_t(t) * size + d];
    __syncthreads();  // the previous parts have been added up
    shared.partial[threadIdx.x] = part;
    __syncthreads();
    if (group == 0 && d < size) {
      real total = 0;
      for (int other = 0; other < groups; other++)
        total += shared.partial[other * across + threadIdx.x];
      mixed[d] = total / sum;
    }
  }
}
